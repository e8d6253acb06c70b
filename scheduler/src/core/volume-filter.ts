/** A tenant runs where its volumes lie. Pure. */
import type { Filter } from "./filters.ts";

/** First: of all other nodes nothing else is worth saying. */
export const volumeFilter: Filter = {
  name: "volume",
  text: () => "its volume lies on another node",
  transient: false,
  refuses: (node, { home }) => home !== undefined && node.name !== home,
};

/** Nothing is started with a volume that is just being removed. */
export const volumeBusyFilter: Filter = {
  name: "volume_busy",
  text: () => "its volume is being removed",
  transient: true,
  refuses: (_, { isVolumeBusy }) => isVolumeBusy === true,
};
