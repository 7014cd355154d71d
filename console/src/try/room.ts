/** A room: who is here, who types, and messages that everybody gets in one order. */
import type { Session, SessionMessage, SessionView } from "@floorcast/client";
import { BASE } from "../kit/access.js";
import { el, Text } from "../kit/elements.js";
import { clock } from "../kit/format.js";
import type { Context } from "../place.js";
import { Code, type Sources } from "./code.js";

const HISTORY = 50;
const VALID = /^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$/;

export class RoomExperiment {
  readonly element: HTMLElement;
  readonly #people = el("ul", { class: "people", "aria-label": "In this room" });
  readonly #log = el("ol");
  readonly #scroller = el(
    "div",
    { class: "messages", role: "log", tabindex: "0", "aria-label": "Messages of the room" },
    this.#log,
  );
  readonly #typing = new Text();
  readonly #status = new Text();
  readonly #name: HTMLInputElement;
  readonly #field: HTMLInputElement;
  readonly #send: HTMLButtonElement;
  readonly #code: Code;
  #session: Session | null = null;
  #release: (() => void) | null = null;
  #shown: readonly SessionMessage[] = [];
  #shownPeople = "";

  constructor(private readonly context: Context) {
    this.#name = el("input", {
      value: "room:try",
      "aria-label": "Room",
      maxlength: "128",
      spellcheck: "false",
      change: () => this.#enter(),
    });
    this.#field = el("input", {
      placeholder: "Message",
      "aria-label": "Message",
      autocomplete: "off",
      maxlength: "1000",
      input: () => this.#session?.typing(),
    });
    this.#send = el("button", { class: "primary" }, "Send");
    this.#code = new Code(context, "a room");
    this.element = el(
      "section",
      { class: "panel experiment room", "aria-label": "Room" },
      el("header", {}, el("h2", {}, "Room"), el("span", { class: "hint" }, this.#status.node), this.#name),
      el(
        "div",
        { class: "content" },
        el(
          "p",
          { class: "hint" },
          "Everybody in a room gets the same messages in the same order. ",
          el("a", { href: "#try", target: "_blank", rel: "opener" }, "Open a second window"),
          " to see both sides.",
        ),
        this.#people,
        this.#scroller,
        el("p", { class: "hint typing", role: "status" }, this.#typing.node),
        el("form", { submit: (event: Event) => this.#submit(event) }, this.#field, this.#send),
        this.#code.element,
      ),
    );
  }

  start(): void {
    this.#enter();
  }

  stop(): void {
    this.#release?.();
    this.#release = null;
    this.#session = null;
  }

  focus(): void {
    this.#field.focus();
  }

  #enter(): void {
    const id = this.#name.value.trim();
    if (!VALID.test(id)) {
      this.#status.set("letters, digits and _ . : -");
      return;
    }
    this.stop();
    this.#shown = [];
    this.#log.replaceChildren();
    const session = this.context.client.session(id, { history: HISTORY });
    this.#session = session;
    this.#release = session.subscribe(() => this.#draw(session.get()));
    this.#code.set((token) => sources(token, id));
    this.#draw(session.get());
  }

  #submit(event: Event): void {
    event.preventDefault();
    const text = this.#field.value.trim();
    if (text !== "" && this.#session !== null) {
      this.#field.value = "";
      this.#session.send({ text }).catch((error: Error) => {
        this.context.toasts.show(`Not sent: ${error.message}`, "problem");
      });
    }
  }

  #draw({ status, reason, error, participants, typing, messages, pending }: SessionView): void {
    const waiting = pending.length > 0 ? `, ${pending.length} on the way` : "";
    this.#status.set(error?.message ?? (reason === null ? status : `${status}: ${reason}`) + waiting);
    this.#send.disabled = status === "error" || status === "closed";
    const own = this.context.client.connection.get().userId;
    this.#drawPeople(participants.map((each) => [each.user_id, each.connections] as const), own);
    const others = typing.filter((user) => user !== own);
    this.#typing.set(others.length === 0 ? "" : `${others.join(", ")} ${others.length === 1 ? "types" : "type"} …`);
    this.#drawMessages(messages, own);
  }

  #drawPeople(people: readonly (readonly [string, number])[], own: string | null): void {
    const key = JSON.stringify(people);
    if (key !== this.#shownPeople) {
      this.#shownPeople = key;
      this.#people.replaceChildren(
        ...people.map(([user, connections]) => {
          const devices = connections > 1 ? ` ×${connections}` : "";
          return el("li", { class: "badge good" }, `${user}${user === own ? " (you)" : ""}${devices}`);
        }),
      );
    }
  }

  /** Messages only come at the end, or all anew. */
  #drawMessages(messages: readonly SessionMessage[], own: string | null): void {
    const last = this.#shown.at(-1);
    const from = last === undefined ? 0 : messages.findIndex((each) => each.id === last.id) + 1;
    if (messages[0]?.id !== this.#shown[0]?.id || (last !== undefined && from === 0)) {
      this.#log.replaceChildren(...messages.map((each) => line(each, own)));
    } else {
      this.#log.append(...messages.slice(from).map((each) => line(each, own)));
    }
    if (messages !== this.#shown) {
      this.#shown = messages;
      this.#scroller.scrollTop = this.#scroller.scrollHeight;
    }
  }
}

function line({ user_id: user, ts, data, seq }: SessionMessage, own: string | null): HTMLElement {
  const text = typeof data["text"] === "string" ? data["text"] : JSON.stringify(data);
  return el(
    "li",
    user === own ? { class: "own" } : {},
    el("time", { title: `position ${seq}` }, clock(ts)),
    el("b", {}, user),
    el("span", {}, text),
  );
}

function sources(token: string, id: string): Sources {
  return {
    javascript: `import { Client } from "@floorcast/client";

const client = new Client("${BASE}", { token: "${token}" });
const room = client.session("${id}", { history: ${HISTORY} });
room.subscribe(() => {
  const { participants, typing, messages } = room.get();
  console.log(participants.length, typing, messages.at(-1)?.data);
});
await room.send({ text: "hello" });`,
    python: `import asyncio
from floorcast import Client

async def main():
    async with Client("${BASE}", token="${token}") as client:
        room = await client.session.join("${id}")
        await room.send({"text": "hello"})
        async for message in room.messages():
            print(message.user_id, message.data)

asyncio.run(main())`,
    curl: `curl "${BASE}api/v1/sessions/${id}/messages" \\
  -H "Authorization: Bearer ${token}" -H "Content-Type: application/json" \\
  -d '{"data": {"text": "hello"}}'`,
  };
}
