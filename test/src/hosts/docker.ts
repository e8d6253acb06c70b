/** The part of Docker's API that tests need, over its socket. */

export interface Container {
  readonly id: string;
  /** Its compose service. */
  readonly service: string;
  /** created, running, exited… */
  readonly state: string;
  /** In words: "Up 3 seconds (healthy)". */
  readonly status: string;
}

const callMs = 30_000;

export class Docker {
  constructor(private readonly socket: string) {}

  async answers(): Promise<boolean> {
    try {
      return (await this.#call("GET", "/_ping")).ok;
    } catch {
      return false; // not yet
    }
  }

  /** Makes an image of a tar; `changes` are Dockerfile lines. @throws Error as Docker says */
  async importImage(name: string, tar: Uint8Array, changes: readonly string[]): Promise<void> {
    const query = new URLSearchParams({ fromSrc: "-", repo: name });
    for (const change of changes) query.append("changes", change);
    const said = await (await this.#call("POST", `/images/create?${query}`, tar)).text();
    if (said.includes('"error"')) throw new Error(`${name} could not be imported: ${said}`);
  }

  /** All, ended ones included. */
  async containers(): Promise<Container[]> {
    const response = await this.#call("GET", "/containers/json?all=1");
    const found = (await response.json()) as {
      Id: string;
      State: string;
      Status: string;
      Labels: Record<string, string>;
    }[];
    return found.map(({ Id, State, Status, Labels }) => ({
      id: Id,
      service: Labels["com.docker.compose.service"] ?? "",
      state: State,
      status: Status,
    }));
  }

  /** Ends it as a power failure does, and starts it no more. */
  async kill(id: string): Promise<void> {
    await this.#done(`/containers/${id}/kill?signal=KILL`);
  }

  async start(id: string): Promise<void> {
    await this.#done(`/containers/${id}/start`);
  }

  async #done(path: string): Promise<void> {
    const response = await this.#call("POST", path);
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  }

  #call(method: string, path: string, body?: Uint8Array): Promise<Response> {
    return fetch(`http://docker${path}`, {
      method,
      unix: this.socket,
      signal: AbortSignal.timeout(callMs),
      ...(body ? { body: body as BodyInit, headers: { "Content-Type": "application/x-tar" } } : {}),
    });
  }
}
