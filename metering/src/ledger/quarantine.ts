/** Records kept in quarantine; of others their number by kind. A record has at most 256 KiB, most have less than one. */
export const quarantineRows = 1_000;
