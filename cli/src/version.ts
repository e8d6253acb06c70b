/** The one version of all of Warren's parts. */
import manifest from "../package.json" with { type: "json" };

export const version: string = manifest.version;
