// Draws the HTTP interface from openapi.json, and puts this server's address into the examples.

const base = new URL(".", document.baseURI);
const contents = document.getElementById("http-contents");
const operations = document.getElementById("operations");

function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.flat());
  return node;
}

// Text with `code` in it, which is the only markup of the descriptions.
function marked(text) {
  return text.split("`").map((part, n) => (n % 2 ? make("code", {}, part) : part));
}

function paragraphs(text = "") {
  return text.split("\n\n").filter(Boolean).map((part) => make("p", {}, marked(part)));
}

function table(heads, rows) {
  const head = make("tr", {}, heads.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...cells]) =>
    make("tr", {}, make("th", { scope: "row" }, first), cells.map((cell) => make("td", {}, cell))));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, body));
}

// What kind of value a schema allows, in a few words.
function kind({ type, format, items, enum: values, const: constant, minimum, maximum, maxLength }, resolve) {
  if (constant !== undefined) return JSON.stringify(constant);
  if (values) return values.map((value) => JSON.stringify(value)).join(" or ");
  const bounds = maximum ? `, ${minimum} to ${maximum}` : maxLength ? `, at most ${maxLength}` : "";
  if (type === "array") return `list of ${items.$ref ? items.$ref.split("/").pop() : kind(resolve(items), resolve)}`;
  return `${[type ?? "any"].flat().join(" or ")}${format ? `, ${format}` : ""}${bounds}`;
}

// The rows for the fields of an object, followed by the fields of the objects in its lists: `sessions[].model`.
function fields(schema, resolve, prefix = "") {
  return Object.entries(schema.properties ?? {}).flatMap(([name, given]) => {
    const field = resolve(given);
    const optional = schema.required?.includes(name) ? "" : ", optional";
    const row = [make("code", {}, prefix + name), make("span", { class: "kind" }, kind(field, resolve) + optional),
                 marked(field.description ?? "")];
    return [row, ...(field.items ? fields(resolve(field.items), resolve, `${prefix}${name}[].`) : [])];
  });
}

function draw(api) {
  const resolve = (node) =>
    node.$ref ? { ...node.$ref.slice(2).split("/").reduce((at, key) => at[key], api), ...node, $ref: undefined } : node;

  function article(path, method, shared, operation) {
    const id = `${operation.operationId}-${method}`;
    const title = make("h3", { id }, make("span", { class: `method ${method}` }, method.toUpperCase()),
                       make("code", {}, path), make("span", { class: "summary" }, operation.summary));
    const parts = [title, ...paragraphs(operation.description)];
    const parameters = [...shared, ...(operation.parameters ?? [])].map(resolve);
    if (parameters.length) {
      parts.push(make("h4", {}, "In the address"), table(["Name", "Kind", "Meaning"], parameters.map((parameter) =>
        [make("code", {}, parameter.name), make("span", { class: "kind" }, kind(resolve(parameter.schema), resolve)),
         marked(parameter.description)])));
    }
    const [[kindOfBody, body] = []] = Object.entries(operation.requestBody?.content ?? {});
    if (body) {
      const rows = fields(resolve(body.schema), resolve);
      parts.push(make("h4", {}, "Body"), table(["Field", "Kind", "Meaning"], rows));
    }
    const [success] = Object.values(operation.responses);
    const answer = success.content["application/json"]?.schema;
    const rows = answer ? fields(resolve(answer), resolve) : [];
    if (rows.length) parts.push(make("h4", {}, "Answer"), table(["Field", "Kind", "Meaning"], rows));
    parts.push(make("h4", {}, "Status"), table(["Code", "Meaning"],
      Object.entries(operation.responses).map(([code, response]) => [code, marked(resolve(response).description)])));
    parts.push(make("pre", { tabindex: "0", class: "curl" }, make("code", {}, curl(path, method, kindOfBody, body?.example))));
    contents.append(make("li", {}, make("a", { href: `#${id}` }, `${method.toUpperCase()} ${path}`)));
    return make("article", { class: "operation", "aria-labelledby": id }, parts);
  }

  const drawn = paragraphs(api.info.description);
  for (const tag of api.tags) {
    drawn.push(make("h2", {}, tag.name), ...paragraphs(tag.description));
    for (const [path, { parameters = [], ...methods }] of Object.entries(api.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        if (operation.tags.includes(tag.name)) drawn.push(article(path, method, parameters, operation));
      }
    }
  }
  operations.replaceChildren(...drawn);
}

function curl(path, method, kindOfBody, example) {
  const isDefault = method === (example ? "post" : "get"); // curl's own choice
  const verb = isDefault ? "" : ` -X ${method.toUpperCase()}`;
  const isForm = kindOfBody === "application/x-www-form-urlencoded"; // what curl sends by itself
  const data = isForm ? new URLSearchParams(example) : JSON.stringify(example);
  const header = isForm ? "" : " -H 'content-type: application/json'";
  const body = example ? `${header} \\\n  -d '${data}'` : "";
  return `curl -s${verb}${body} '${base.href.replace(/\/$/, "")}${path}'`;
}

for (const code of document.querySelectorAll("pre code")) {
  code.textContent = code.textContent
    .replaceAll("http://localhost:8000/", base.href)
    .replaceAll("ws://localhost:8000/", base.href.replace(/^http/, "ws"));
}

fetch("openapi.json")
  .then((response) => response.json())
  .then(draw)
  // The target of a link into this part exists only now.
  .then(() => location.hash && document.querySelector(`[id="${CSS.escape(location.hash.slice(1))}"]`)?.scrollIntoView())
  .catch(() => {}); // the page then still has its link to openapi.json
