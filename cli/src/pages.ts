/** All of what a scheduler lists page by page. */
import type { Warren } from "@warren/client";
import type { Release, Tenant } from "@warren/proto/common";

const pageSize = 500;

export async function* allTenants(warren: Warren, signal?: AbortSignal): AsyncGenerator<Tenant> {
  for (let pageToken = ""; ; ) {
    const page = await warren.scheduler.listTenants({ pageSize, pageToken }, { signal });
    yield* page.tenants;
    pageToken = page.nextPageToken;
    if (!pageToken) return;
  }
}

/** In the order of their digests. */
export async function* allReleases(warren: Warren, signal?: AbortSignal): AsyncGenerator<Release> {
  for (let pageToken = ""; ; ) {
    const page = await warren.scheduler.listReleases({ pageSize, pageToken }, { signal });
    yield* page.releases;
    pageToken = page.nextPageToken;
    if (!pageToken) return;
  }
}
