/** The header Forwarded of RFC 7239. Pure. */

const pair = /\s*([\w!#$%&'*+.^`|~-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))\s*([;,]?)/y;

/** Its elements, the client's first; names in lower case. What is not well formed ends it: of that nothing is believed. */
export function forwardedElements(text: string): Map<string, string>[] {
  const elements: Map<string, string>[] = [];
  let element = new Map<string, string>();
  pair.lastIndex = 0;
  while (pair.lastIndex < text.length) {
    const match = pair.exec(text);
    if (!match) return [];
    const [, name = "", quoted, plain = "", separator] = match;
    element.set(name.toLowerCase(), quoted === undefined ? plain : quoted.replace(/\\(.)/g, "$1"));
    if (separator === ";") continue;
    elements.push(element);
    element = new Map();
    if (separator === "" && pair.lastIndex < text.length) return [];
  }
  return elements;
}

/** One element; addresses of IPv6 and hosts with ports are quoted. */
export function forwardedElement(address: string, more: Readonly<Record<string, string>> = {}): string {
  const node = address.includes(":") ? `"[${address}]"` : address;
  const rest = Object.entries(more).map(
    ([name, value]) => `;${name}=${/^[\w.-]+$/.test(value) ? value : `"${value}"`}`,
  );
  return `for=${node}${rest.join("")}`;
}
