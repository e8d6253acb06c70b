/** `@peculiar/x509`, which needs reflect-metadata to be there before it is loaded: nobody else imports either. */
import "reflect-metadata";

export * from "@peculiar/x509";
