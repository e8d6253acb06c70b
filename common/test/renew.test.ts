import { expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { Role } from "@warren/proto/common";
import { createCa, issueCertificate, renew } from "../src/tls/ca.ts";
import { renewalDue } from "../src/tls/renew.ts";

const day = 86_400_000;
const who = { cell: "c", role: Role.AGENT, name: "n1", hosts: ["n1.internal", "10.0.0.1", "::1"] };

test("a certificate is renewed when a third of its life is left, or a little before, for the same key, name and hosts", async () => {
  const ca = await createCa("c");
  const { cert } = await issueCertificate(ca, { ...who, days: 29 }); // begins a day ago
  const due = [0, 1].map((random) => Math.round((renewalDue(cert, random) - Date.now()) / (day / 10)) / 10);
  expect(due).toEqual([19, 17.5]);

  const before = new X509Certificate(cert);
  const after = new X509Certificate(await renew(ca, before.raw));
  expect([after.subject, after.subjectAltName]).toEqual([before.subject, before.subjectAltName]);
  expect(after.publicKey.equals(before.publicKey)).toBe(true);
  expect(after.verify(new X509Certificate(ca.cert).publicKey)).toBe(true);
  expect(Date.parse(after.validTo)).toBeGreaterThan(Date.now() + 800 * day);
});
