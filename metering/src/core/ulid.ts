/** An instance's id is a ULID, and a gateway's ends in one: its first ten characters are when it was placed or started. */
const shape = /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/;
const digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

export const isUlid = (text: string): boolean => shape.test(text);

/** When it was made, in ms since 1970; nothing if it is no ULID. */
export function createdAt(id: string): number | undefined {
  if (!isUlid(id)) return undefined;
  return [...id.slice(0, 10)].reduce((sum, digit) => sum * 32 + digits.indexOf(digit), 0);
}
