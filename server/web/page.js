// The page: a conversation, and beside it the cache of the answer that is being written.
//
// An answer arrives as server-sent events. With "cache_events" each of them says how many tokens there are and how many rows
// are cached; after a compression one says which tokens are left, a digit each: the share of layers that still have it.
"use strict";

const $ = (id) => document.getElementById(id);
const history = []; // of the conversation, as the API wants it
let running = null; // AbortController of the answer that is being written
let shown = null;   // the answer whose cache is shown

// ------------------------------------------------------------------------------------------------- the server

const headers = () => {
  const key = $("key").value.trim();
  return { "Content-Type": "application/json", ...(key && { Authorization: "Bearer " + key }) };
};

async function refused(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).error.message;
  } catch {
    return text || "HTTP " + response.status;
  }
}

// The events of an answer, until its end.
async function* events(body, signal) {
  const response = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
  if (!response.ok) throw new Error(await refused(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const lines = text.split("\n\n");
    text = lines.pop();
    for (const line of lines) {
      if (line === "data: [DONE]") return;
      const event = JSON.parse(line.slice("data: ".length));
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

async function introduce() {
  try {
    const response = await fetch("v1/models", { headers: headers() });
    if (!response.ok) throw new Error(await refused(response));
    const model = (await response.json()).data[0];
    $("model").textContent = `${model.id}, context ${model.context_length}, default policy ${model.cache_policy}`;
    $("policy").placeholder = model.cache_policy.split(",")[0] + (model.cache_policy.includes(",") ? ",…" : "");
    $("most").placeholder = model.max_tokens;
  } catch (error) {
    $("model").textContent = error.message;
  }
}

// ------------------------------------------------------------------------------------------------- messages

function element(name, className, text) {
  const e = document.createElement(name);
  if (className) e.className = className;
  if (text) e.textContent = text;
  return e;
}

function addMessage(who, text) {
  const article = element("article");
  article.append(element("h2", "", who));
  if (text !== undefined) article.append(element("div", "text", text));
  $("messages").append(article);
  return article;
}

// An answer: its article, its pieces of text with the tokens they came with, and what is known of its cache.
function newAnswer() {
  const article = addMessage("Pith");
  const thought = element("details"), summary = element("summary", "", "Thinking");
  const reasoning = element("div", "text"), content = element("div", "text");
  reasoning.tabIndex = 0;
  thought.append(summary, reasoning);
  thought.hidden = true;
  article.append(thought, content);
  return {
    article, thought, reasoning, content, text: "", pieces: [], nTokens: 0, rows: 0, full: 0, kept: "", compressions: 0,
    curve: [], started: performance.now(), seconds: 0,
  };
}

function addPiece(answer, to, text, nTokens) {
  if (!text) return;
  const piece = element("span", "", text);
  to.append(piece);
  answer.pieces.push({ piece, from: answer.nTokens, to: nTokens });
}

// Whether most of a piece's tokens are left in more than half of the layers; tokens behind the last compression all are.
function isKept(answer, from, to) {
  let kept = 0;
  for (let i = from; i < to; i++) kept += i >= answer.kept.length || answer.kept[i] >= "5" ? 1 : 0;
  return 2 * kept > to - from;
}

function markKept(answer) {
  for (const { piece, from, to } of answer.pieces)
    if (from < answer.kept.length) piece.className = isKept(answer, from, to) ? "kept" : "";
}

// Who reads at the end of the text goes on reading there.
function followed(change) {
  const page = document.documentElement, thought = shown.reasoning;
  const atEnd = page.scrollHeight - page.clientHeight - page.scrollTop < 40;
  const inThought = thought.scrollHeight - thought.clientHeight - thought.scrollTop < 40;
  change();
  if (inThought) thought.scrollTop = thought.scrollHeight;
  if (atEnd) page.scrollTop = page.scrollHeight;
}

function take(answer, event) {
  const cache = event.cache, delta = event.choices[0]?.delta;
  if (delta) {
    const nTokens = cache ? cache.tokens : answer.nTokens;
    if (delta.reasoning_content) answer.thought.hidden = false;
    addPiece(answer, answer.reasoning, delta.reasoning_content, nTokens);
    addPiece(answer, answer.content, delta.content, nTokens);
    answer.text += delta.content || "";
    answer.nTokens = nTokens;
  }
  if (cache) {
    if (cache.kept !== undefined) {
      answer.kept = cache.kept;
      answer.compressions++;
      answer.curve.push([cache.tokens, cache.rows_before, cache.rows_full]);
      markKept(answer);
    }
    answer.rows = cache.rows;
    answer.full = cache.rows_full;
    if (cache.rows > 0) answer.curve.push([cache.tokens, cache.rows, cache.rows_full]); // 0: the prompt is not read yet
  }
  answer.seconds = (performance.now() - answer.started) / 1000;
}

function conclude(answer, usage, note) {
  const c = usage?.cache;
  const said = c
    ? `${usage.completion_tokens} tokens, ${c.policy}: ${c.rows_peak} rows at most instead of ${c.rows_full} ` +
      `(${Math.round((100 * c.bytes_peak) / Math.max(1, c.bytes_full))} % of the bytes), ${c.compressions} compressions`
    : note;
  answer.article.append(element("p", "about", said));
}

// ------------------------------------------------------------------------------------------------- the cache

function line(points, width, height) {
  const step = Math.max(1, Math.floor(points.length / 400)); // compressions are corners: their points stay
  return (value) => points
    .filter((p, i) => i % step === 0 || i === points.length - 1 || (i > 0 && p[0] === points[i - 1][0]) ||
      (i + 1 < points.length && p[0] === points[i + 1][0]))
    .map((p) => `${(40 + (352 * p[0]) / width).toFixed(1)},${(136 - (128 * p[value]) / height).toFixed(1)}`).join(" ");
}

function drawPlot(a) {
  const width = Math.max(1, a.nTokens), height = Math.max(1, a.full), points = line(a.curve, width, height);
  $("plot-rows").setAttribute("points", points(1));
  $("plot-full").setAttribute("points", points(2));
  $("plot-top").textContent = a.full || "";
  $("plot-right").textContent = a.nTokens ? a.nTokens + " tokens" : "";
  $("plot-says").textContent = `${a.rows} rows cached after ${a.nTokens} tokens, ${a.full} with a full cache`;
}

function drawStrip(a) {
  const canvas = $("strip"), scale = window.devicePixelRatio || 1, width = canvas.clientWidth || 300;
  const cell = [10, 8, 6, 5, 4, 3, 2].find((s) => Math.ceil(a.nTokens / Math.floor(width / s)) * s <= 300) || 2;
  const columns = Math.max(1, Math.floor(width / cell)), height = Math.max(1, Math.ceil(a.nTokens / columns)) * cell;
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.height = height + "px";
  const style = getComputedStyle(document.documentElement), draw = canvas.getContext("2d");
  const gap = cell > 4 ? 1 : 0;
  let most = 0;
  draw.scale(scale, scale);
  for (let i = 0; i < a.nTokens; i++) {
    const share = i < a.kept.length ? Number(a.kept[i]) / 9 : 1;
    most += share > 0.5 ? 1 : 0;
    const x = (i % columns) * cell, y = Math.floor(i / columns) * cell;
    draw.globalAlpha = share > 0 ? 0.25 + 0.75 * share : 0.35;
    draw.fillStyle = style.getPropertyValue(share > 0 ? "--accent" : "--line");
    draw.fillRect(x, y, cell - gap, cell - gap);
  }
  canvas.setAttribute("aria-label", `${most} of ${a.nTokens} generated tokens are kept by more than half of the layers`);
}

let drawing = false;
function draw() {
  if (drawing || !shown) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const a = shown;
    $("n-tokens").textContent = a.nTokens;
    $("n-rows").textContent = a.rows;
    $("n-full").textContent = a.full;
    $("n-compressions").textContent = a.compressions;
    $("n-speed").textContent = a.seconds > 0 ? (a.nTokens / a.seconds).toFixed(1) : 0;
    drawPlot(a);
    drawStrip(a);
  });
}

// ------------------------------------------------------------------------------------------------- asking

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").className = wrong ? "wrong" : "";
}

function setRunning(controller) {
  running = controller;
  $("send").disabled = $("clear").disabled = controller !== null;
  $("stop").disabled = controller === null;
}

function requestBody() {
  const policy = $("policy").value.trim(), effort = $("effort").value, most = Number($("most").value);
  return {
    messages: history, stream: true, stream_options: { include_usage: true }, cache_events: true,
    ...(policy && { cache_policy: policy }), ...(effort && { reasoning_effort: effort }), ...(most && { max_tokens: most }),
  };
}

async function ask(question) {
  history.push({ role: "user", content: question });
  addMessage("You", question);
  const answer = (shown = newAnswer());
  setRunning(new AbortController());
  say("The model is answering. Escape stops it.");
  let usage = null, finish = null;
  try {
    for await (const event of events(requestBody(), running.signal)) {
      followed(() => take(answer, event));
      usage = event.usage || usage;
      finish = event.choices[0]?.finish_reason || finish;
      draw();
    }
    say(finish === "length" ? "The answer reached its most tokens." : "The answer is complete.");
    conclude(answer, usage, "");
  } catch (error) {
    const stopped = error.name === "AbortError";
    say(stopped ? "Stopped." : error.message, !stopped);
    conclude(answer, null, stopped ? `stopped after ${answer.nTokens} tokens` : error.message);
  }
  // Without an answer there was no turn: the question can be asked again.
  if (answer.nTokens > 0) history.push({ role: "assistant", content: answer.text });
  else history.pop();
  setRunning(null);
  draw();
  $("question").focus();
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || running) return;
  $("question").value = "";
  ask(question);
});
$("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("ask").requestSubmit();
});
document.addEventListener("keydown", (event) => event.key === "Escape" && running?.abort());
$("stop").addEventListener("click", () => running?.abort());
$("clear").addEventListener("click", () => {
  history.length = 0;
  shown = null;
  $("messages").replaceChildren();
  say("");
  $("question").focus();
});
$("key").addEventListener("change", introduce);
window.addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
introduce();
