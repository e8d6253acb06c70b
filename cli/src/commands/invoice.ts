/** `warren invoice`: what a month would cost, by the plans that the metering process was given. */
import { fromTimestamp, toTimestamp } from "@warren/common/time";
import { type Invoice, InvoiceSchema } from "@warren/proto/metering";
import type { Command } from "commander";
import pc from "../colors.ts";
import { invoicesText, invoiceText } from "../invoice-text.ts";
import { asMeteredVerb, withMetering } from "../metered.ts";
import { monthOption } from "../moments.ts";
import { messageJson, printJson } from "../output.ts";
import { plotsHere, terminalWidth } from "../plot.ts";
import type { VerbOptions } from "../verb.ts";

export function invoiceCommand(program: Command): void {
  asMeteredVerb(program.command("invoice"))
    .description("preview what a month costs a tenant, by its plan; without one, all of them")
    .argument("[tenant]", "only this one's, line by line")
    .option("--month <yyyy-mm>", "which month, UTC (default: this one, as far as it has gone)", monthOption)
    .action((tenant: string | undefined, options: VerbOptions & { month?: number }) =>
      withMetering(options, async (metering, signal) => {
        const month = options.month === undefined ? undefined : toTimestamp(options.month);
        const invoices: Invoice[] = [];
        for (let pageToken = ""; ; ) {
          const page = await metering.previewInvoices({ tenant, month, pageToken }, { signal });
          if (options.json)
            for (const invoice of page.invoices) printJson(messageJson(InvoiceSchema, invoice));
          else invoices.push(...page.invoices);
          pageToken = page.nextPageToken;
          if (!pageToken) break;
        }
        if (options.json) return;
        if (tenant) process.stdout.write(invoices.map(invoiceText).join("\n"));
        else if (invoices.length === 0) process.stdout.write("nobody has used anything in that month\n");
        else {
          const width = plotsHere() ? terminalWidth() : undefined;
          const [first] = invoices;
          process.stdout.write(`${heading(first!)}\n\n${invoicesText(invoices, width)}`);
        }
      }),
    );
}

const heading = ({ start, settled }: Invoice): string =>
  `${pc.bold(new Date(fromTimestamp(start, 0)).toISOString().slice(0, 7))} ${pc.dim(settled ? "settled" : "so far")}`;
