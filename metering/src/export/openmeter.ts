/**
 * CloudEvents 1.0 in JSON, as OpenMeter takes them in: one per tenant and window, its meters side by side in `data`, each to
 * be read by a meter of OpenMeter's with that value property and the aggregation SUM.
 *
 * OpenMeter drops an event whose id and source it has seen. So the id is made of what the row is about and never of what it
 * says, and a repeated export changes nothing. For the same reason only what is settled and whole may be exported: a window
 * that was sent too early would be dropped when it is sent again, with all that came to it in between.
 */
import { kindOf, type MeterKey, meterKinds } from "../billing/catalog.ts";
import { quantityText } from "../billing/quantity.ts";
import type { ExportRow, ExportSource, RowFormat } from "./row.ts";

/** Its event type. */
export const openMeterType = "warren.usage";

const property = (name: MeterKey): string => name.replaceAll("-", "_");

export const openMeter = ({ cell, cut }: ExportSource): RowFormat => ({
  head: "",
  row({ tenant, start, end, use }: ExportRow) {
    const from = new Date(start!).toISOString();
    // As text: a JSON number is a float to most who read it.
    const quantities = meterKinds.map(({ name, of }) => [
      property(name),
      quantityText(kindOf(name), of(use)),
    ]);
    return `${JSON.stringify({
      specversion: "1.0",
      id: `${tenant}/${cut}/${from}`,
      source: `warren/${cell}`,
      type: openMeterType,
      subject: tenant,
      // The beginning: it lies in the window, and its end does not.
      time: from,
      datacontenttype: "application/json",
      data: { window: cut, end: new Date(end!).toISOString(), ...Object.fromEntries(quantities) },
    })}\n`;
  },
});
