/** The cell's own certificate authority. */
import "reflect-metadata"; // @peculiar/x509 needs it before it is loaded
import { isIP } from "node:net";
import {
  BasicConstraintsExtension,
  cryptoProvider,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type JsonGeneralNames,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from "@peculiar/x509";
import type { Role } from "@warren/proto/common";
import { roleName } from "../rpc/roles.ts";

cryptoProvider.set(globalThis.crypto as Crypto);

const keyAlgorithm = { name: "ECDSA", namedCurve: "P-256" } as const;
const signing = { ...keyAlgorithm, hash: "SHA-256" } as const;
const day = 86_400_000;

/** PEM texts. The key stays with whoever issues; processes get only the certificate. */
export interface CertificateAuthority {
  readonly cert: string;
  readonly key: string;
}

async function privateKeyPem(key: CryptoKey): Promise<string> {
  return PemConverter.encode(await crypto.subtle.exportKey("pkcs8", key), "PRIVATE KEY");
}

async function importKey(pem: string): Promise<CryptoKey> {
  const der = PemConverter.decode(pem)[0]!;
  return crypto.subtle.importKey("pkcs8", der, keyAlgorithm, true, ["sign"]);
}

const serial = () =>
  Buffer.from(crypto.getRandomValues(new Uint8Array(16)))
    .toString("hex")
    .replace(/^./, "1");
const escapeName = (text: string) => text.replace(/[,+="<>#;\\]/g, "\\$&");

/** A self-signed CA for one cell, valid for ten years. */
export async function createCa(cell: string): Promise<CertificateAuthority> {
  const keys = await crypto.subtle.generateKey(keyAlgorithm, true, ["sign", "verify"]);
  const cert = await X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: `CN=Warren CA,O=${escapeName(cell)}`,
    notBefore: new Date(Date.now() - day),
    notAfter: new Date(Date.now() + 3650 * day),
    signingAlgorithm: signing,
    keys,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { cert: cert.toString("pem"), key: await privateKeyPem(keys.privateKey) };
}

/** The cell that a CA's certificate names. */
export function cellOf(caCert: string): string {
  return new X509Certificate(caCert).subjectName.getField("O")[0] ?? "";
}

/**
 * A certificate for one process, for serving and for calling: CN its name, OU its role, O its cell.
 * @param hosts names and addresses it may be reached by
 */
export async function issueCertificate(
  ca: CertificateAuthority,
  who: { cell: string; role: Role; name: string; hosts: readonly string[]; days?: number },
): Promise<{ cert: string; key: string }> {
  const keys = await crypto.subtle.generateKey(keyAlgorithm, true, ["sign", "verify"]);
  const issuer = new X509Certificate(ca.cert);
  const names: JsonGeneralNames = who.hosts.map((host) => ({
    type: isIP(host) ? ("ip" as const) : ("dns" as const),
    value: host,
  }));
  const cert = await X509CertificateGenerator.create({
    serialNumber: serial(),
    issuer: issuer.subject,
    subject: `CN=${escapeName(who.name)},OU=${roleName(who.role)},O=${escapeName(who.cell)}`,
    notBefore: new Date(Date.now() - day),
    notAfter: new Date(Date.now() + (who.days ?? 825) * day),
    signingAlgorithm: signing,
    publicKey: keys.publicKey,
    signingKey: await importKey(ca.key),
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
      ...(names.length ? [new SubjectAlternativeNameExtension(names)] : []),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { cert: cert.toString("pem"), key: await privateKeyPem(keys.privateKey) };
}
