/**
 * The first `most` keys above `after`, in order, and whether there are more. Of a million keys not all are sorted for a
 * page of a hundred: the scheduler decides nothing meanwhile.
 */
export function pageOf(
  keys: Iterable<string>,
  after: string,
  most: number,
): { readonly page: readonly string[]; readonly more: boolean } {
  const enough = most + 1;
  let least: string[] = [];
  let limit: string | undefined;
  for (const key of keys) {
    if (key <= after || (limit !== undefined && key >= limit)) continue;
    least.push(key);
    if (least.length < 8 * enough) continue;
    least = least.sort().slice(0, enough);
    limit = least.at(-1);
  }
  least.sort();
  return { page: least.slice(0, most), more: least.length > most };
}
