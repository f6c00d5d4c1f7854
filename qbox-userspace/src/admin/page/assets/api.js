// The admin API, as the page asks it. Every answer is data: nothing of it is ever made into markup.

const TOKEN = "qbox-token";

/** An answer that was no success; `status` is HTTP's, `message` is for people. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let askForToken = null;

/** Says who asks a person for the token: an async function that ends once there is a new one. */
export function onTokenNeeded(ask) {
  askForToken = ask;
}

function remembered() {
  try { return sessionStorage.getItem(TOKEN); } catch { return null; }
}

/** Keeps the token for as long as the tab lives. */
export function remember(token) {
  try { sessionStorage.setItem(TOKEN, token); } catch { /* asked again after a reload */ }
}

async function send(path, options = {}) {
  for (;;) {
    const headers = { Accept: "application/json", ...options.headers };
    const token = remembered();
    if (token) headers.Authorization = `Bearer ${token}`;
    const answer = await fetch(path, { cache: "no-store", ...options, headers });
    if (answer.status !== 401 || !askForToken) return answer;
    await askForToken(Boolean(token));
  }
}

async function failure(answer) {
  const problem = await answer.json().catch(() => null);
  return new Refusal(answer.status, problem?.detail ?? problem?.title ?? `answered ${answer.status}`);
}

/** GET, as JSON. */
export async function get(path, signal) {
  const answer = await send(path, { signal });
  if (!answer.ok) throw await failure(answer);
  return answer.json();
}

/** A decision for one saga. Ends when it is durable. */
export async function decide(id, action, body) {
  const answer = await send(`/api/v1/sagas/${encodeURIComponent(id)}/${encodeURIComponent(action)}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw await failure(answer);
  return answer.json();
}

/** The first wait after a connection broke, and the longest, in milliseconds. */
const AGAIN = [500, 5000];

/**
 * Follows `/api/v1/live` for as long as the page is open. `seen` gets each snapshot, `lost` is told when the connection breaks.
 * By fetch and not by EventSource, which could not send a token.
 */
export async function live(seen, lost) {
  let wait = AGAIN[0];
  for (;;) {
    try {
      const answer = await send("/api/v1/live", { headers: { Accept: "text/event-stream" } });
      if (!answer.ok) throw await failure(answer);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
        const messages = text.split("\n\n");
        text = messages.pop();
        for (const message of messages) {
          const data = message.split("\n").filter((line) => line.startsWith("data:"));
          if (data.length) seen(JSON.parse(data.map((line) => line.slice(5)).join("\n")));
          wait = AGAIN[0];
        }
      }
      lost("the connection was closed");
    } catch (error) {
      lost(error.message);
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, AGAIN[1]);
  }
}
