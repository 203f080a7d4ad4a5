// The openai package against a server: `node api.mjs URL`. Ends with status 0 when everything is as its documentation says.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const { OpenAI } = createRequire(process.env.PITH_CLIENTS + "/")("openai");
const url = process.argv[2];
const client = new OpenAI({ baseURL: url + "/v1", apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Why?" }];
const model = (await client.models.list()).data[0].id;
const body = { model, messages, max_tokens: 40, seed: 3, ignore_eos: true };

// Whole answers, and several of them.
const whole = await client.chat.completions.create(body);
assert.equal(whole.choices[0].message.role, "assistant");
assert.equal(whole.usage.completion_tokens, 40);
assert.equal(whole.usage.cache.compressions, 0);
const three = await client.chat.completions.create({ ...body, n: 3 });
assert.equal(three.choices.length, 3);
assert.deepEqual(three.choices[0].message, whole.choices[0].message);

// Streams, read in two ways.
let reasoning = "", content = "", usage = null;
for await (const chunk of await client.chat.completions.create({ ...body, stream: true, stream_options: { include_usage: true } })) {
  reasoning += chunk.choices[0]?.delta.reasoning_content ?? "";
  content += chunk.choices[0]?.delta.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(content, whole.choices[0].message.content);
assert.equal(reasoning, whole.choices[0].message.reasoning_content ?? "");
assert.deepEqual(usage, whole.usage);
const gathered = await client.chat.completions.stream(body).finalChatCompletion();
assert.equal(gathered.choices[0].message.content ?? "", whole.choices[0].message.content);

// Log-probabilities.
const logprobs = (await client.chat.completions.create(
  { ...body, logprobs: true, top_logprobs: 2, thinking_budget: 5 })).choices[0].logprobs;
assert.equal(logprobs.content.at(-1).top_logprobs.length, 2);

// Answers that keep to a schema, in the package's three ways.
const schema = { type: "object", properties: { yes: { type: "boolean" }, n: { type: "integer", minimum: 1, maximum: 99 } },
                 required: ["yes", "n"], additionalProperties: false };
const response_format = { type: "json_schema", json_schema: { name: "answer", strict: true, schema } };
const bound = { ...body, max_tokens: 200, thinking_budget: 5, response_format };
const parsed = (await client.chat.completions.parse(bound)).choices[0].message.parsed;
assert.equal(typeof parsed.yes, "boolean");
assert(Number.isInteger(parsed.n) && parsed.n >= 1 && parsed.n <= 99);
const created = (await client.chat.completions.create(bound)).choices[0];
assert.deepEqual(JSON.parse(created.message.content), parsed);
assert.equal(created.finish_reason, "stop");
const streamed = await client.chat.completions.stream(bound).finalChatCompletion();
assert.equal(streamed.choices[0].message.content, created.message.content);
const object = await client.chat.completions.create({ ...bound, max_tokens: 30, response_format: { type: "json_object" } });
assert.match(object.choices[0].message.content, /^{/);
await assert.rejects(client.chat.completions.create(
  { ...bound, response_format: { type: "json_schema", json_schema: { name: "bad", schema: { type: "text" } } } }), (error) =>
  error instanceof OpenAI.BadRequestError && error.param === "response_format");

// Text completions.
const text = await client.completions.create({ model, prompt: "Why?", max_tokens: 10, seed: 1, ignore_eos: true });
assert.equal(text.object, "text_completion");
assert.equal(text.usage.completion_tokens, 10);

// Errors become the package's own.
await assert.rejects(client.chat.completions.create({ ...body, model: "other" }), OpenAI.NotFoundError);
await assert.rejects(client.chat.completions.create({ ...body, n: 1000 }), OpenAI.BadRequestError);
await assert.rejects(client.chat.completions.create({ ...body, cache_policy: "best" }), (error) =>
  error instanceof OpenAI.BadRequestError && error.param === "cache_policy");

// A reader that goes away: the answer ends on the server too.
const endless = { ...body, max_tokens: 1_000_000, cache_policy: "window:budget=64" };
const controller = new AbortController();
const long = await client.chat.completions.create({ ...endless, stream: true }, { signal: controller.signal });
for await (const chunk of long) if (chunk.choices[0].finish_reason === null) controller.abort();
const deadline = Date.now() + 60_000;
for (;;) {
  const metrics = await (await fetch(url + "/metrics")).text();
  if (/^pith_running 0$/m.test(metrics) && /^pith_cancelled_total 1$/m.test(metrics)) break;
  assert(Date.now() < deadline, metrics);
}
