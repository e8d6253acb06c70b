/** The cell's own certificate authority. */
import { createHash, createPublicKey } from "node:crypto";
import { isIP } from "node:net";
import type { Role } from "@warren/proto/common";
import { roleName, roleOf } from "../rpc/roles.ts";
import {
  BasicConstraintsExtension,
  cryptoProvider,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type JsonGeneralNames,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  Pkcs10CertificateRequest,
  Pkcs10CertificateRequestGenerator,
  type PublicKeyType,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from "./x509.ts";

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

/** sha256 of the CA's certificate, in hex: what pins it. */
export function fingerprintOf(caCert: string): string {
  return createHash("sha256")
    .update(Buffer.from(new X509Certificate(caCert).rawData))
    .digest("hex");
}

/** Who a certificate is for. */
export interface Subject {
  readonly cell: string;
  readonly role: Role;
  readonly name: string;
  /** Names and addresses its server may be reached by. */
  readonly hosts: readonly string[];
  readonly days?: number;
}

/** A certificate for one process, for serving and for calling, and its key. */
export async function issueCertificate(
  ca: CertificateAuthority,
  who: Subject,
): Promise<{ cert: string; key: string }> {
  const keys = await crypto.subtle.generateKey(keyAlgorithm, true, ["sign", "verify"]);
  return { cert: await certify(ca, who, keys.publicKey), key: await privateKeyPem(keys.privateKey) };
}

/** A new private key, PEM. */
export async function createKey(): Promise<string> {
  return privateKeyPem((await crypto.subtle.generateKey(keyAlgorithm, true, ["sign", "verify"])).privateKey);
}

/** A request (PKCS#10, PEM) for a certificate. It names nobody: whoever signs it knows whom it is for. */
export async function signingRequest(key: string): Promise<string> {
  const spki = createPublicKey(key).export({ type: "spki", format: "der" });
  const keys = {
    privateKey: await importKey(key),
    publicKey: await crypto.subtle.importKey("spki", spki, keyAlgorithm, true, ["verify"]),
  };
  const request = await Pkcs10CertificateRequestGenerator.create({ keys, signingAlgorithm: signing });
  return request.toString("pem");
}

/** A request that was read, whose maker has proven to have the key. */
export interface SigningRequest {
  /** sha256 of the public key (SPKI), in hex. */
  readonly keyHash: string;
  readonly publicKey: PublicKeyType;
}

/**
 * @returns nothing for what is no request, is for another kind of key than ours, or was not signed with that key
 */
export async function readSigningRequest(pem: string): Promise<SigningRequest | undefined> {
  try {
    const request = new Pkcs10CertificateRequest(pem);
    const { algorithm, rawData } = request.publicKey;
    const isOurs = (algorithm as EcKeyAlgorithm).namedCurve === keyAlgorithm.namedCurve;
    if (algorithm.name !== keyAlgorithm.name || !isOurs || !(await request.verify())) return undefined;
    return { keyHash: keyHashOf(rawData), publicKey: request.publicKey };
  } catch {
    return undefined; // whatever it is, it is no request
  }
}

const keyHashOf = (spki: ArrayBuffer): string => createHash("sha256").update(Buffer.from(spki)).digest("hex");

/** Names and addresses that a certificate (PEM) is for. */
export function hostsOf(cert: string): string[] {
  return namesIn(new X509Certificate(cert));
}

/** Name (CN) of whom a certificate (PEM) is for. */
export function nameOf(cert: string): string {
  return new X509Certificate(cert).subjectName.getField("CN")[0] ?? "";
}

function namesIn(certificate: X509Certificate): string[] {
  const names = certificate.getExtension(SubjectAlternativeNameExtension)?.names.items ?? [];
  return names.map(({ value }) => value);
}

/**
 * That certificate of this CA (DER), valid anew: the same key, name, role and hosts.
 * @throws Error when it is none
 */
export async function renew(
  ca: CertificateAuthority,
  certificate: Uint8Array,
  days?: number,
): Promise<string> {
  const before = new X509Certificate(Buffer.from(certificate));
  const { subjectName: subject, publicKey } = before;
  const first = (field: string) => subject.getField(field)[0] ?? "";
  const who = {
    cell: first("O"),
    role: roleOf(first("OU")),
    name: first("CN"),
    hosts: namesIn(before),
    days,
  };
  return certify(ca, who, publicKey);
}

/** A certificate for somebody else's key: CN its name, OU its role, O its cell. */
export async function certify(
  ca: CertificateAuthority,
  who: Subject,
  publicKey: PublicKeyType,
): Promise<string> {
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
    publicKey,
    signingKey: await importKey(ca.key),
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
      ...(names.length ? [new SubjectAlternativeNameExtension(names)] : []),
      await SubjectKeyIdentifierExtension.create(publicKey),
    ],
  });
  return cert.toString("pem");
}
