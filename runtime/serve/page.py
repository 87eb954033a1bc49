"""The live page: one HTML document that loads nothing but its own pictures and numbers."""

import base64
import hashlib

_CSS = """
:root { color-scheme: light dark; --ink: #1b2733; --quiet: #52606d; --line: #d9dfe5; --soft: #f4f6f8; --page: #fff;
  --accent: #0072b2; --bad: #b34700; --good: #00734f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf0; --quiet: #a3b0bd; --line: #33404d; --soft: #1d2731;
  --page: #12181f; --accent: #56b4e9; --bad: #ff9d5c; --good: #4fd1a5; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
header { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: baseline; padding: 14px 20px 10px; }
h1 { font-size: 19px; margin: 0; }
h2 { font-size: 15px; margin: 20px 0 8px; }
h2:first-child { margin-top: 0; }
#status { font-weight: 600; color: var(--good); }
#status.bad { color: var(--bad); }
#about { color: var(--quiet); font-size: 13px; overflow-wrap: anywhere; }
main { display: grid; grid-template-columns: minmax(0, 5fr) minmax(300px, 2fr); gap: 0 24px; padding: 0 20px 24px; }
figure { margin: 0; position: sticky; top: 12px; align-self: start; }
figure img { display: block; width: 100%; max-height: calc(100vh - 90px); object-fit: contain; border-radius: 8px;
  background: var(--soft); min-height: 120px; }
figcaption { color: var(--quiet); font-size: 13px; padding: 6px 0 0; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: 6px; padding: 0 20px 10px; }
nav button { font: inherit; font-size: 14px; color: inherit; background: var(--soft); border: 1px solid var(--line);
  border-radius: 16px; padding: 6px 14px; cursor: pointer; overflow-wrap: anywhere; }
nav button[aria-pressed=true] { border-color: var(--accent); box-shadow: inset 0 0 0 1px var(--accent); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(88px, 1fr)); gap: 8px; margin: 0; }
.tiles div { background: var(--soft); border-radius: 8px; padding: 8px 12px; }
.tiles dt { color: var(--quiet); font-size: 13px; }
.tiles dd { margin: 0; font-size: 21px; line-height: 1.25; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
td, th { padding: 3px 0; border-bottom: 1px solid var(--line); text-align: left; font-weight: 400; }
td.ms { text-align: right; font-variant-numeric: tabular-nums; width: 5.5em; white-space: nowrap; }
td.bar { width: 40%; padding-left: 12px; }
td.bar i { display: block; height: 8px; border-radius: 4px; background: var(--accent); min-width: 2px; }
ol { list-style: none; margin: 0; padding: 0; }
ol > li { border: 1px solid var(--line); border-radius: 8px; padding: 8px 12px; margin: 0 0 8px; }
.scores { display: flex; flex-wrap: wrap; gap: 0 10px; align-items: baseline; font-size: 14px;
  font-variant-numeric: tabular-nums; }
.scores b { font-size: 16px; }
.parts { display: flex; flex-wrap: wrap; gap: 2px 12px; margin: 4px 0 0; padding: 0; list-style: none;
  font-size: 13px; }
.parts i { display: inline-block; width: 12px; height: 12px; border: 1px solid #8888; border-radius: 3px;
  margin-right: 5px; vertical-align: -1px; }
.quiet { color: var(--quiet); font-size: 13px; }
@media (max-width: 760px) { main { grid-template-columns: minmax(0, 1fr); padding: 0 12px 16px; }
  header { padding: 10px 12px 8px; } nav { padding: 0 12px 8px; } figure { position: static; }
  figure img { border-radius: 4px; max-height: 60vh; } h2:first-child { margin-top: 16px; } }
"""

_SCRIPT = """
'use strict';
const byId = id => document.getElementById(id);
const number = (value, digits) => value === null || value === undefined ? '' : value.toFixed(digits);
let chosen = 0, shown = -1, colours = {};

function element(kind, text, className) {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function show(stream) {
  if (shown === stream) return;
  shown = stream;
  byId('picture').src = 'stream.mjpg?stream=' + stream;
}

function drawStreams(streams) {
  const nav = byId('streams');
  nav.hidden = streams.length < 2;
  if (nav.children.length !== streams.length) {
    nav.replaceChildren(...streams.map((stream, index) => {
      const button = element('button', stream.name);
      button.addEventListener('click', () => { chosen = index; refresh(); });
      return button;
    }));
  }
  [...nav.children].forEach((button, index) => button.setAttribute('aria-pressed', index === chosen));
}

function drawTiles(stream) {
  const tiles = [['frames/s', number(stream.frame_rate, 1)], ['people', stream.people.length],
    ['frames', stream.frames]];
  for (const name of ['dropped', 'skipped', 'reconnects']) {
    if (stream[name] || (name === 'dropped' && stream.kind === 'live')) tiles.push([name, stream[name]]);
  }
  byId('tiles').replaceChildren(...tiles.map(([name, value]) => {
    const tile = element('div');
    tile.append(element('dt', name), element('dd', value));
    return tile;
  }));
}

function drawStages(stages) {
  const rows = Object.entries(stages);
  const most = Math.max(...rows.map(([, times]) => times.p50), 1e-6);
  byId('stages').replaceChildren(...rows.map(([name, times]) => {
    const row = element('tr'), bar = element('td', undefined, 'bar'), line = element('i');
    line.style.width = (100 * times.p50 / most).toFixed(1) + '%';
    bar.append(line);
    const head = element('th', name);
    head.scope = 'row';
    row.append(head, element('td', number(times.p50, 2) + ' ms', 'ms'), bar);
    return row;
  }));
}

function drawPerson(person) {
  const item = element('li'), scores = element('div', undefined, 'scores'), parts = element('ul', undefined, 'parts');
  const name = person.track_id === undefined ? '' : '#' + person.track_id + ' ';
  scores.append(element('b', name + 'Q ' + number(person.quality, 2)));
  for (const [label, key] of [['box', 'box_score'], ['iou', 'iou_score'], ['pix', 'pixel_score']]) {
    scores.append(element('span', label + ' ' + number(person[key], 2)));
  }
  const all = person.parts.reduce((sum, part) => sum + part.area_px, 0) || 1;
  for (const part of [...person.parts].sort((a, b) => b.area_px - a.area_px)) {
    const entry = element('li'), swatch = element('i');
    swatch.style.background = 'rgb(' + (colours[part.class_id] || [0, 0, 0]).join(',') + ')';
    const share = 100 * part.area_px / all;
    entry.append(swatch, part.class + ' ' + (share < 1 ? '<1' : share.toFixed(0)) + '%');
    entry.title = part.area_px + ' pixels, Q ' + number(part.quality, 2);
    parts.append(entry);
  }
  const [x0, y0, x1, y1] = person.box_xyxy.map(Math.round);
  item.append(scores, parts, element('div', 'box ' + x0 + ', ' + y0 + ' to ' + x1 + ', ' + y1, 'quiet'));
  return item;
}

function draw(state) {
  chosen = Math.min(chosen, state.streams.length - 1);
  const stream = state.streams[chosen];
  colours = Object.fromEntries(state.classes.map(entry => [entry.class_id, entry.rgb]));
  byId('about').textContent = [state.model, state.precision, state.runtime && 'on ' + state.runtime,
    state.detector && 'detector: ' + state.detector].filter(Boolean).join(' \u00b7 ');
  drawStreams(state.streams);
  drawTiles(stream);
  drawStages(stream.stages_ms);
  const people = [...stream.people].sort((a, b) => (a.track_id || 0) - (b.track_id || 0));  // everybody keeps a place
  byId('people').replaceChildren(...people.map(drawPerson));
  byId('nobody').hidden = stream.people.length > 0;
  const size = stream.image_size ? ', ' + stream.image_size[1] + ' x ' + stream.image_size[0] : '';
  byId('caption').textContent = stream.frame === null ? 'waiting for the first frame'
    : stream.name + ', frame ' + stream.frame_name + size;
  if (stream.frame !== null) show(chosen);
  tell(stream.ended ? 'ended' : 'running', stream.ended);
}

function tell(text, bad) {
  byId('status').textContent = text;
  byId('status').className = bad ? 'bad' : '';
}

let asking = false;
async function refresh() {
  if (asking) return;
  asking = true;
  try {
    draw(await (await fetch('state.json', { signal: AbortSignal.timeout(5000) })).json());
  } catch (error) {
    tell('the run has ended, or cannot be reached', true);
    shown = -1;
  } finally {
    asking = false;
  }
}
refresh();
setInterval(refresh, 500);
"""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_CSS)}; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>qanet parse</title>
<link rel="icon" href="data:,">
<style>{_CSS}</style>
</head>
<body>
<header><h1>qanet parse</h1><span id="status" role="status">connecting</span><span id="about"></span></header>
<nav id="streams" aria-label="Streams" hidden></nav>
<main>
<figure><img id="picture" alt="The newest frame with the people's parts, boxes and scores">
<figcaption id="caption"></figcaption></figure>
<div>
<h2>Now</h2><dl class="tiles" id="tiles"></dl>
<h2>Stages, median</h2><table><tbody id="stages"></tbody></table>
<h2>People</h2><ol id="people"></ol><p class="quiet" id="nobody" hidden>nobody in this frame</p>
<p class="quiet"><a href="state.json">state.json</a> has all of it</p>
</div>
</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""
