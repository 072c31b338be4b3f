/** Requests to the server that this page came from. */

/** What the server says is wrong. */
export class Refusal extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * @param {string} path
 * @param {{key: string, signal?: AbortSignal, form?: FormData, json?: object}} options
 * @returns {Promise<Response>}
 */
export async function call(path, { key, signal, form, json }) {
  /** @type {Record<string, string>} */
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (json) headers["Content-Type"] = "application/json";
  const body = form ?? (json && JSON.stringify(json));
  const answer = await window.fetch(path, { method: body ? "POST" : "GET", headers, body, signal });
  if (!answer.ok) throw new Refusal(answer.status, await reason(answer));
  return answer;
}

/** @param {Response} answer */
async function reason(answer) {
  const told = await answer.json().catch(() => null);
  const again = answer.headers.get("Retry-After");
  return `${told?.error?.message ?? `the server answered with ${answer.status}`}${again ? ` (try again in ${again} s)` : ""}`;
}

/** The words of an answer as they come. @param {Response} answer */
export async function* words(answer) {
  const reader = /** @type {ReadableStream} */ (answer.body).pipeThrough(new window.TextDecoderStream()).getReader();
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const lines = (rest + part.value).split("\n\n");
    rest = /** @type {string} */ (lines.pop());
    for (const line of lines) {
      const data = line.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Refusal(500, event.error.message);
      yield event.choices[0].delta.content ?? "";
    }
  }
}

/** @param {Blob} file @returns {Promise<string>} */
export function dataUrl(file) {
  return new Promise((done, fail) => {
    const reader = new window.FileReader();
    reader.onload = () => done(String(reader.result));
    reader.onerror = () => fail(new Error("the picture cannot be read"));
    reader.readAsDataURL(file);
  });
}

/** An address of a picture in base64, for this page. @param {string} text */
export function address(text) {
  const bytes = Uint8Array.from(window.atob(text), (sign) => sign.charCodeAt(0));
  return URL.createObjectURL(new window.Blob([bytes], { type: "image/png" }));
}
