/** The token of the page: the server's own in the demo, else one that the user enters. */
import { el } from "./elements.js";

interface ServerSession {
  /** The demo gives one to whoever can open the page. */
  token: string | null;
  version: string;
}

export interface Claims {
  readonly user: string;
  readonly scopes: readonly string[];
}

/** Relative to the page: the server may be mounted below a path. */
export const BASE = new URL(".", location.href).href;
const KEPT = "floorcast.token";

export class Access {
  #entered = kept();
  #given: string | null = null;
  #version: string | null = null;
  #changed = new Set<() => void>();

  /** Ask the server, and the user if the server gives no token; resolves with the first token. */
  async start(): Promise<void> {
    const { token } = await this.#askServer().catch(() => ({ token: null }));
    if (token === null && this.#entered === null) {
      await this.enter("");
    }
  }

  /** Called by the client for each connect: a restarted demo has another token. */
  readonly token = async (): Promise<string> => {
    if (this.#entered !== null) {
      return this.#entered;
    }
    const { token } = await this.#askServer();
    if (token === null) {
      throw new Error("the server gives no token");
    }
    return token;
  };

  /** The token in use, for requests and for examples to copy. */
  get current(): string {
    return this.#entered ?? this.#given ?? "";
  }

  /** Whether the server gave the token: examples may show it. */
  get isDemo(): boolean {
    return this.#entered === null && this.#given !== null;
  }

  /** The version of the server when it sent this page. */
  get pageVersion(): string {
    return this.#version ?? "";
  }

  /** The version that the server has now; rejects if it cannot be reached. */
  async serverVersion(): Promise<string> {
    const { version } = await this.#askServer();
    return version;
  }

  get claims(): Claims {
    return claimsOf(this.current);
  }

  may(scope: string): boolean {
    return this.claims.scopes.includes(scope);
  }

  /** Call after each change of the token. */
  onChange(call: () => void): void {
    this.#changed.add(call);
  }

  /** Show the form for a token until one is accepted. */
  enter(problem: string): Promise<void> {
    return new Promise((resolve) => {
      const field = el("input", {
        id: "token",
        type: "password",
        autocomplete: "off",
        required: true,
        spellcheck: "false",
      });
      const error = el("p", { class: "problem", role: "alert" }, problem);
      const button = el("button", { class: "primary" }, "Open the console");
      const submit = async (event: Event) => {
        event.preventDefault();
        button.disabled = true;
        const token = field.value.trim();
        const refusal = await check(token);
        button.disabled = false;
        error.textContent = refusal;
        if (refusal === "") {
          this.#use(token);
          dialog.close();
          dialog.remove();
          resolve();
        }
      };
      const dialog = el(
        "dialog",
        { class: "access", "aria-labelledby": "access-title", cancel: (event: Event) => event.preventDefault() },
        el(
          "form",
          { submit },
          el("h1", { id: "access-title" }, "Floorcast"),
          el("label", { for: "token" }, "Token with the scope admin"),
          field,
          error,
          button,
          el("p", { class: "hint" }, "It stays in this tab. Make one with:"),
          el("pre", {}, "floorcast token --sub NAME --scope admin --scope market:read"),
        ),
      );
      document.body.append(dialog);
      dialog.showModal();
    });
  }

  #use(token: string): void {
    this.#entered = token;
    try {
      sessionStorage.setItem(KEPT, token);
    } catch {
      // It is asked for again after a reload.
    }
    this.#changed.forEach((call) => call());
  }

  async #askServer(): Promise<ServerSession> {
    const response = await fetch(`${BASE}console/session`, { cache: "no-store" });
    if (!response.ok) {
      throw new Error(`the server answers ${response.status}`);
    }
    const session = (await response.json()) as ServerSession;
    this.#version ??= session.version;
    if (session.token !== this.#given) {
      this.#given = session.token;
      this.#changed.forEach((call) => call());
    }
    return session;
  }
}

function kept(): string | null {
  try {
    return sessionStorage.getItem(KEPT);
  } catch {
    return null;
  }
}

/** Why a token does not open the console; empty if it does. */
async function check(token: string): Promise<string> {
  try {
    const headers = { Authorization: `Bearer ${token}` };
    const response = await fetch(`${BASE}api/v1/nodes`, { headers });
    const { error } = (await response.json()) as { error?: { message: string } };
    return error?.message ?? "";
  } catch (error) {
    return error instanceof TypeError ? "The server cannot be reached." : String(error);
  }
}

/** What a token says of itself; the server alone knows whether it is true. */
function claimsOf(token: string): Claims {
  try {
    const part = (token.split(".")[1] ?? "").replace(/-/g, "+").replace(/_/g, "/");
    const { sub, scope } = JSON.parse(atob(part)) as { sub?: string; scope?: string };
    return { user: sub ?? "", scopes: scope?.split(" ") ?? [] };
  } catch {
    return { user: "", scopes: [] };
  }
}
