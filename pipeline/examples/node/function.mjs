// A function with nothing but Node.js 18: answers each event with what it saw of it (pipeline/conformance/README.md).

import { createHash } from "node:crypto";
import { createServer } from "node:http";

const NAME = process.env.K_SERVICE ?? "seen";
const STRUCTURED = "application/cloudevents+json";
const MAX_EVENT = 128 * 1024;
const REQUIRED = ["specversion", "id", "source", "type"];

const essence = (contentType) => contentType.split(";")[0].trim().toLowerCase();
const isJson = (contentType) =>
  ["application/json", "text/json"].includes(essence(contentType)) || essence(contentType).endsWith("+json");
const digest = (...parts) => createHash("sha256").update(parts.join("\0")).digest("hex");

/** Attributes as text, and the data: as `data`, as `data_base64`, or none. Throws for what is no event. */
function read(headers, body) {
  const contentType = headers["content-type"] ?? "";
  let attributes, data;
  if (essence(contentType) === STRUCTURED) {
    const { data: json, data_base64: base64, ...rest } = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
    attributes = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== null).map(([k, v]) => [k, text(v)]));
    data = base64 !== undefined ? { data_base64: base64 } : json !== undefined ? { data: json } : {};
    if (typeof json === "string" && !isJson(attributes.datacontenttype ?? "application/json")) {
      data = { data_base64: Buffer.from(json).toString("base64") };
    }
  } else {
    attributes = Object.fromEntries(
      Object.entries(headers)
        .filter(([name]) => name.startsWith("ce-"))
        .map(([name, value]) => [name.slice(3), decodeURIComponent(value)]),
    );
    if (contentType) attributes.datacontenttype = contentType;
    if (body.length === 0) data = {};
    else if (isJson(contentType)) data = { data: JSON.parse(body.toString()) };
    else data = { data_base64: body.toString("base64") };
  }
  const missing = REQUIRED.filter((name) => !attributes[name]);
  if (missing.length > 0) throw new Error(`no CloudEvent: ${missing.join(", ")} is missing`);
  delete attributes.specversion;
  return [attributes, data];
}

function text(value) {
  if (["string", "boolean"].includes(typeof value) || Number.isInteger(value)) return String(value);
  throw new Error("an attribute is no text, integer or boolean");
}

function answer(attributes, data) {
  const { source, id, subject, pipelinerun } = attributes;
  return {
    specversion: "1.0",
    // From the request: an event that is delivered twice is answered by one event.
    id: digest(source, id, NAME),
    source: `/baton/functions/${NAME}`,
    type: "dev.baton.example.seen.v1",
    ...(subject === undefined ? {} : { subject }),
    pipelinerun: pipelinerun ?? digest(source, id).slice(0, 16),
    datacontenttype: "application/json",
    data: { attributes, ...shortened(data) },
  };
}

function shortened(data) {
  const content = data.data_base64 === undefined ? data.data : Buffer.from(data.data_base64, "base64");
  const isLong = (typeof content === "string" || Buffer.isBuffer(content)) && content.length > 1024;
  return isLong ? { length: content.length } : data;
}

const server = createServer(async (request, response) => {
  const reply = (status, contentType, body) => response.writeHead(status, { "content-type": contentType }).end(body);
  if (request.method === "GET" && ["/health/readiness", "/health/liveness"].includes(request.url)) {
    return reply(200, "text/plain", "ok\n");
  }
  if (request.method !== "POST") return reply(405, "text/plain", "POST an event\n");
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size <= MAX_EVENT) chunks.push(chunk);
  }
  if (size > MAX_EVENT) return reply(413, "text/plain", "too large\n");
  try {
    reply(200, STRUCTURED, JSON.stringify(answer(...read(request.headers, Buffer.concat(chunks)))));
  } catch (error) {
    reply(400, "text/plain", `${error.message}\n`);
  }
});

const [host, port] = (process.env.LISTEN_ADDRESS ?? "127.0.0.1:8080").split(/:(?=\d+$)/);
server.listen(Number(port), host);
process.on("SIGTERM", () => server.close(() => process.exit(0)));
