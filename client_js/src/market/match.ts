/** Patterns of symbols and topics, in which `*` stands for any characters. */

/** A check whether a symbol matches a pattern such as `BTC*`. */
export function matcher(pattern: string): (symbol: string) => boolean {
  const parts = pattern.split("*").map((each) => each.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&"));
  const expression = new RegExp(`^${parts.join(".*")}$`);
  return (symbol) => expression.test(symbol);
}

/** Whether a name such as `PRICE:*` stands for many topics. */
export function isPattern(topic: string): boolean {
  return topic.includes("*");
}

/** A check whether a topic is one of those that a pattern such as `ORDERBOOK:*@10` stands for. */
export function topicMatcher(pattern: string): (topic: string) => boolean {
  const [head, symbol, view] = parts(pattern);
  const matches = matcher(symbol);
  return (topic) => {
    const own = parts(topic);
    return own[0] === head && own[2] === view && matches(own[1]);
  };
}

/** The stream, the symbol, and the view; a symbol may have a colon, but no `@`. */
function parts(topic: string): [string, string, string | undefined] {
  const colon = topic.indexOf(":");
  const [symbol = "", view] = topic.slice(colon + 1).split("@");
  return [topic.slice(0, Math.max(0, colon)), symbol, view];
}
