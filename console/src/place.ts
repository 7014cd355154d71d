/** What a place of the console is: see the README for how one is added. */
import type { Client } from "@floorcast/client";
import type { Access } from "./kit/access.js";
import type { Api } from "./kit/api.js";
import type { Shortcut } from "./kit/shortcuts.js";
import type { Toasts } from "./kit/toasts.js";

export interface Context {
  readonly client: Client;
  readonly access: Access;
  readonly api: Api;
  readonly toasts: Toasts;
}

/** A key that does something while its place is shown. */
export interface PlaceShortcut<View extends PlaceView = PlaceView> extends Pick<Shortcut, "keys" | "text"> {
  run(view: View): void;
}

export interface Place<View extends PlaceView = PlaceView> {
  /** Its part of the address: `#watch`. */
  readonly id: string;
  readonly title: string;
  /** Shown only with a token that has it. */
  readonly scope?: string;
  /** The help lists them before the place is first shown, too. */
  readonly shortcuts: readonly PlaceShortcut<View>[];
  /** Fill the section, when it is first shown. */
  open(context: Context, section: HTMLElement): View;
}

export interface PlaceView {
  show?(): void;
  /** Another place is shown: stop what costs. */
  hide?(): void;
}
