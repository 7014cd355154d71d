/** What a place of the console is: see the README for how one is added. */
import type { Client } from "@floorcast/client";
import type { Access } from "./kit/access.js";
import type { Api } from "./kit/api.js";
import type { Shortcuts } from "./kit/shortcuts.js";
import type { Toasts } from "./kit/toasts.js";

export interface Context {
  readonly client: Client;
  readonly access: Access;
  readonly api: Api;
  readonly toasts: Toasts;
  readonly shortcuts: Shortcuts;
}

export interface Place {
  /** Its part of the address: `#watch`. */
  readonly id: string;
  readonly title: string;
  /** Shown only with a token that has it. */
  readonly scope?: string;
  /** Fill the section, when it is first shown. */
  open(context: Context, section: HTMLElement): PlaceView;
}

export interface PlaceView {
  show?(): void;
  /** Another place is shown: stop what costs. */
  hide?(): void;
}
