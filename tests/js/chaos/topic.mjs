// Follows one topic or session as an application does, and checks what it receives.
import { Book } from "../kit/book.mjs";

const KEPT_ID = {
  TRADES: (data) => data.trades[0].id,
  ORDER_UPDATES: (data) => data.order_id,
  USER_DATA: (data) => data.id,
  RISK_ALERTS: (data) => data.message,
};

// The position of a topic or session, updated by replies and messages.
class Followed {
  // Violations, shared with the application.
  violations = [];
  // Whether the last request was answered; earlier messages are ignored.
  live = false;
  position = null;

  constructor(name) {
    this.name = name;
  }

  violate(what, detail) {
    this.violations.push(`${this.name}: ${what} ${JSON.stringify(detail)}`);
  }

  get since() {
    return this.position ?? undefined;
  }

  begin({ epoch, seq }) {
    if (this.position !== null && this.position.epoch !== epoch) this.violate("another epoch", epoch);
    if (this.position !== null && this.position.seq > seq) this.violate("went back to", seq);
    this.position = { epoch, seq };
    this.live = true;
  }

  follows(prev, epoch, type) {
    if (this.position.epoch === epoch && this.position.seq === prev) return true;
    this.violate("gap", { at: this.position, prev, epoch, type });
    return false;
  }
}

export class Kept extends Followed {
  received = [];

  constructor(name, idOf = KEPT_ID[name.split(":")[0]]) {
    super(name);
    this.idOf = idOf;
  }

  takeReply({ epoch, seq, recovered, missed }) {
    if (this.position !== null) {
      if (!recovered) this.violate("not recovered from", this.position);
      for (const message of missed) this.take(message);
      if (this.position.seq !== seq) this.violate("the reply ends at another position", { at: this.position, seq });
    }
    this.begin({ epoch, seq });
  }

  receive(message) {
    if (!this.live) return;
    if (message.type === "heartbeat") this.follows(message.seq, message.epoch);
    else if (message.type === "snapshot") this.violate("unexpected snapshot", message);
    else this.take(message);
  }

  take({ epoch, seq, prev = seq - 1, data }) {
    if (seq !== prev + 1) this.violate("skips", { prev, seq });
    this.follows(prev, epoch);
    this.position = { epoch, seq };
    this.received.push([seq, this.idOf(data)]);
  }

  report() {
    return { position: this.position, received: this.received };
  }
}

export class Merged extends Followed {
  book = this.name.startsWith("ORDERBOOK") ? new Book() : null;
  data = null;

  takeReply({ epoch, seq, snapshot, recovered }) {
    if (snapshot !== null) this.store(snapshot);
    else if (this.position !== null && !(recovered && this.position.seq === seq)) {
      this.violate("no snapshot although the state is new", { at: this.position, seq });
    }
    this.begin({ epoch, seq });
  }

  receive(message) {
    if (!this.live) return;
    this.follows(message.prev, message.epoch, message.type);
    this.position = { epoch: message.epoch, seq: message.seq };
    if (message.type !== "heartbeat") this.store(message);
  }

  store(message) {
    this.data = message.data;
    try {
      this.book?.take(message);
    } catch (error) {
      this.violate("checksum", error.message);
    }
  }

  report() {
    const book = this.book && { bids: Object.fromEntries(this.book.bids), asks: Object.fromEntries(this.book.asks) };
    return { position: this.position, data: this.data, book };
  }
}
