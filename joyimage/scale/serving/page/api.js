/** The endpoints and their fields, from the server's own description. */
import { html, the } from "./elements.js";

/** @param {any} schema the type of a field in words */
function kind(schema) {
  const kinds = (schema.anyOf ?? [schema]).map((/** @type {any} */ each) => each.enum?.join(" | ") ?? each.const ?? each.type ?? each.$ref?.split("/").at(-1));
  return [...new Set(kinds.filter((/** @type {string} */ each) => each !== "null"))].join(" or ");
}

/** @param {any} schema of a request */
function fields(schema) {
  const rows = Object.entries(schema.properties ?? {}).flatMap(([name, /** @type {any} */ field]) => {
    const usual = field.default === undefined || field.default === null ? "" : `; ${JSON.stringify(field.default)} by default`;
    const wanted = schema.required?.includes(name) ? "; required" : usual;
    const told = `${kind(field)}${wanted}${field.description ? `: ${field.description}` : ""}`;
    return [html("dt", {}, name), html("dd", {}, told)];
  });
  return html("dl", {}, ...rows);
}

const described = await (await window.fetch("/openapi.json")).json();
for (const [path, methods] of Object.entries(described.paths)) {
  for (const [method, /** @type {any} */ operation] of Object.entries(/** @type {any} */ (methods))) {
    const body = Object.entries(operation.requestBody?.content ?? {});
    const section = html("section", {}, html("h2", {}, `${method.toUpperCase()} ${path}`), html("p", {}, operation.description));
    if (body.length) {
      const [, /** @type {any} */ content] = body[0];
      section.append(html("p", {}, `Takes ${body.map(([type]) => type).join(" or ")}.`));
      section.append(fields(described.components.schemas[content.schema.$ref.split("/").at(-1)]));
    }
    the("endpoints").append(section);
  }
}
