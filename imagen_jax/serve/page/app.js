// The page: a form whose settings are in the URL, images as they are sampled, a history, a mask.

import { readMetadata } from "./png.js";
import { Mask } from "./mask.js";

const $ = (id) => document.getElementById(id);
const NAMES = ["prompt", "negative_prompt", "size", "n", "num_inference_steps", "guidance_scale", "seed", "strength"];
const NUMBERS = new Set(["n", "num_inference_steps", "guidance_scale", "seed", "strength"]);
const HISTORY = "imagen.history";
const MOST = 50; // entries of the history
const mask = new Mask($("canvas"), $("brush"));
let model = null;
let running = null; // the AbortController of the request that is made

function say(text, isBad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", isBad);
}

function headers() {
  const token = $("token").value;
  return token ? { authorization: `Bearer ${token}` } : {};
}

async function failure(response) {
  const found = await response.json().catch(() => null);
  return found?.error?.message ?? `the server answered ${response.status}`;
}

async function loadModel() {
  const response = await fetch("v1/models", { headers: headers() });
  if (response.status === 401) {
    $("token_box").hidden = false;
    $("token").focus();
    throw new Error("this server wants a token");
  }
  if (!response.ok) throw new Error(await failure(response));
  model = (await response.json()).data[0];
  sessionStorage.setItem("imagen.token", $("token").value);
  $("model").textContent = model.id;
  $("size").replaceChildren(...model.sizes.map((size) => new Option(size)));
  $("num_inference_steps").placeholder = model.steps;
  $("num_inference_steps").max = model.max_steps;
  $("guidance_scale").placeholder = model.guidance;
  $("num_inference_steps").disabled = model.fixed_steps;
  $("guidance_scale").disabled = !model.takes_guidance;
  $("negative_prompt").disabled = !model.takes_negative_prompt;
}

// Settings and the URL.

function settings() {
  const found = {};
  for (const name of NAMES) {
    const value = $(name).value.trim();
    if (name === "prompt" || (value !== "" && !(name === "n" && value === "1"))) found[name] = value;
  }
  if (!mask.hasImage) delete found.strength;
  return found;
}

function show(values) {
  for (const name of NAMES) {
    if (name === "size" && !(values.size && model.sizes.includes(values.size))) continue;
    $(name).value = values[name] ?? (name === "n" ? "1" : "");
  }
}

function link(values) {
  return `#${new URLSearchParams(values)}`;
}

function readUrl() {
  if (location.hash.length > 1) show(Object.fromEntries(new URLSearchParams(location.hash.slice(1))));
}

function history() {
  try {
    return JSON.parse(localStorage.getItem(HISTORY)) ?? [];
  } catch {
    return [];
  }
}

function remember(values) {
  const entry = link(values);
  const kept = [entry, ...history().filter((other) => other !== entry)].slice(0, MOST);
  localStorage.setItem(HISTORY, JSON.stringify(kept));
  window.history.replaceState(null, "", entry);
  showHistory();
}

function showHistory() {
  const items = history().map((entry) => {
    const values = Object.fromEntries(new URLSearchParams(entry.slice(1)));
    const anchor = document.createElement("a");
    anchor.href = entry;
    anchor.textContent = `${values.prompt || "(no text)"} · seed ${values.seed ?? "any"}`;
    const item = document.createElement("li");
    item.append(anchor);
    return item;
  });
  $("history").replaceChildren(...items);
}

// Images.

function figures(count) {
  const made = Array.from({ length: count }, () => {
    const figure = document.createElement("figure");
    figure.className = "waiting";
    return figure;
  });
  $("grid").prepend(...made);
  return made;
}

function paint(figure, event, values) {
  const source = `data:image/png;base64,${event.b64_json}`;
  const image = document.createElement("img");
  image.src = source;
  image.alt = values.prompt || "image without text";
  figure.className = "partial";
  figure.replaceChildren(image);
  if (!event.type.endsWith(".completed")) return;
  figure.className = "done";
  const caption = document.createElement("figcaption");
  const save = document.createElement("a");
  save.href = source;
  save.download = `imagen-${event.seed}-${event.index}.png`;
  save.textContent = "Download";
  const edit = document.createElement("button");
  edit.type = "button";
  edit.textContent = "Edit";
  edit.addEventListener("click", () => useImage(source));
  const permanent = document.createElement("a");
  permanent.href = link({ ...values, seed: event.seed });
  permanent.textContent = `seed ${event.seed}${event.index ? `, image ${event.index + 1}` : ""}`;
  caption.append(save, permanent, edit);
  figure.append(caption);
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split(/\r?\n\r?\n/);
    text = parts.pop();
    for (const part of parts) {
      const data = part.split(/\r?\n/).filter((line) => line.startsWith("data:"));
      if (data.length) yield JSON.parse(data.map((line) => line.slice(5).trimStart()).join("\n"));
    }
  }
}

async function request(values, signal) {
  const fields = { ...values, stream: true, partial_images: 3 };
  if (!mask.hasImage) {
    for (const name of NUMBERS) if (name in fields) fields[name] = Number(fields[name]);
    const body = JSON.stringify(fields);
    const type = { "content-type": "application/json" };
    return fetch("v1/images/generations", { method: "POST", headers: { ...headers(), ...type }, body, signal });
  }
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  form.append("image", await mask.imageFile(), "image.png");
  const painted = await mask.maskFile();
  if (painted) form.append("mask", painted, "mask.png");
  return fetch("v1/images/edits", { method: "POST", headers: headers(), body: form, signal });
}

async function sample() {
  if (running) return;
  running = new AbortController();
  $("go").disabled = true;
  $("cancel").disabled = false;
  $("progress").hidden = false;
  $("progress").removeAttribute("value");
  const values = settings();
  const count = Number(values.n ?? 1);
  const shares = Array(count).fill(0);
  const shown = figures(count);
  say("waiting for the devices");
  try {
    if (!model) await loadModel();
    const response = await request(values, running.signal);
    if (!response.ok) throw new Error(await failure(response));
    let seed;
    let warnings = [];
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      ({ seed, warnings } = event);
      paint(shown[event.index], event, { ...values, seed });
      shares[event.index] = event.progress ?? 1;
      const share = shares.reduce((sum, one) => sum + one, 0) / count;
      $("progress").value = share;
      say(`${Math.round(100 * share)} %`);
    }
    remember({ ...values, seed });
    say(["done", ...warnings].join("; "));
  } catch (error) {
    say(running.signal.aborted ? "cancelled" : error.message, !running.signal.aborted);
  } finally {
    for (const figure of shown) if (figure.className !== "done") figure.remove();
    running = null;
    $("go").disabled = false;
    $("cancel").disabled = true;
    $("progress").hidden = true;
  }
}

// Images to start from.

async function useImage(source) {
  await mask.load(source, $("size").value);
  $("canvas_box").hidden = $("strength_box").hidden = false;
  $("source").open = true;
  $("canvas").focus();
}

async function takeFile(file) {
  const metadata = readMetadata(await file.arrayBuffer());
  if (metadata) {
    const [height, width] = String(metadata.size ?? "").split("x");
    show({ ...metadata, size: `${width}x${height}`, n: String((metadata.index ?? 0) + 1), strength: undefined });
    say("settings read from the image; it can be edited, too");
  }
  await useImage(URL.createObjectURL(file));
}

function attempt(work) {
  return (...given) => Promise.resolve(work(...given)).catch((error) => say(error.message, true));
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  sample();
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) sample();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
$("cancel").addEventListener("click", () => running?.abort());
$("file").addEventListener("change", attempt(() => $("file").files.length && takeFile($("file").files[0])));
$("clear_mask").addEventListener("click", () => mask.clear());
$("remove_image").addEventListener("click", () => {
  mask.remove();
  $("file").value = "";
  $("canvas_box").hidden = $("strength_box").hidden = true;
});
$("forget").addEventListener("click", () => {
  localStorage.removeItem(HISTORY);
  showHistory();
});
$("token").addEventListener("change", attempt(async () => {
  await loadModel();
  readUrl();
  say("");
}));
window.addEventListener("hashchange", () => model && readUrl());
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", kind === "dragover");
  });
}
document.addEventListener("drop", attempt((event) => event.dataTransfer.files.length && takeFile(event.dataTransfer.files[0])));

$("token").value = sessionStorage.getItem("imagen.token") ?? "";
showHistory();
attempt(async () => {
  await loadModel();
  readUrl();
})();
