"""The page's style sheet: dark on light, system fonts, one column on a phone."""

CSS = """
:root { color-scheme: light; --ink: #1b2733; --quiet: #52606d; --line: #d9dfe5; --soft: #f4f6f8; --accent: #0072b2; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header.top { max-width: 1120px; margin: 0 auto; padding: 0 24px; }
header.top { padding-top: 40px; }
header.top p { margin: 0 0 2px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 21px; line-height: 1.3; margin: 0 0 12px; letter-spacing: -0.005em; }
h3 { font-size: 16px; margin: 24px 0 8px; }
section { padding: 32px 0 0; }
p { margin: 0 0 12px; max-width: 92ch; overflow-wrap: break-word; }
.quiet, figcaption, .note { color: var(--quiet); font-size: 14px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px; margin: 24px 0 0;
  padding: 0; list-style: none; }
.cards li { border: 1px solid var(--line); border-top: 4px solid var(--accent); border-radius: 6px;
  padding: 12px 16px; }
.cards strong { display: block; font-size: 26px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.cards span { color: var(--quiet); font-size: 14px; display: block; }
.warnings { border-left: 4px solid #d55e00; background: #fdf4ee; padding: 12px 16px; margin: 24px 0 0;
  border-radius: 0 6px 6px 0; }
.warnings p { margin: 0; font-weight: 600; }
.warnings ul { margin: 4px 0 0; padding-left: 20px; }
.warnings li { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 0 0 16px; border: 1px solid var(--line); border-radius: 6px; }
.scroll:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { padding: 7px 12px; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap;
  vertical-align: top; }
thead th { white-space: normal; min-width: 5.2em; background: var(--soft); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 600; background: #fff; }
tbody tr:last-child > * { border-bottom: 0; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.wrap, td .wrap { white-space: normal; min-width: 16em; }
code { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
figure { margin: 0; min-width: 0; }
figure img { display: block; width: 100%; height: auto; border-radius: 6px; background: var(--soft); }
figcaption { padding: 6px 0 0; }
figcaption.above { padding: 0 0 6px; }
.frames { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 20px; }
.crops { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 16px; }
.crops figure { max-width: 288px; }
.frames + *, .legend + .note, .side + .note { margin-top: 16px; }
.pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 32px; margin: 24px 0 12px; }
.side { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 6fr); gap: 32px; align-items: start; }
.chart { display: block; width: 100%; max-width: 500px; height: auto; font-family: inherit; }
.chart .halo { paint-order: stroke; stroke: #fff; stroke-width: 4px; stroke-linejoin: round; }
.share { display: block; width: 150px; height: 14px; border-radius: 3px; background: var(--soft); }
.shares { display: block; white-space: normal; width: 150px; margin-top: 4px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 12px 0 0; padding: 0; list-style: none;
  font-size: 14px; }
.legend i { display: inline-block; width: 14px; height: 14px; border: 1px solid #0004; border-radius: 3px;
  margin-right: 6px; vertical-align: -2px; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 0 32px; margin: 0 0 16px; }
.facts div { display: flex; gap: 16px; justify-content: space-between; border-top: 1px solid var(--line);
  padding: 7px 0; }
.facts dt { color: var(--quiet); font-size: 14px; flex: none; }
.facts dd { margin: 0; text-align: right; font-size: 14px; overflow-wrap: anywhere; min-width: 0; }
.scope { columns: 2; column-gap: 32px; padding-left: 20px; margin: 0 0 12px; }
.scope li { break-inside: avoid; margin: 0 0 6px; }
footer { color: var(--quiet); font-size: 14px; padding: 40px 0 48px; }
@media (max-width: 860px) {
  .side, .pair { grid-template-columns: minmax(0, 1fr); gap: 16px; }
  .scope { columns: 1; }
}
@media (max-width: 560px) {
  main, header.top { padding-left: 16px; padding-right: 16px; }
  header.top { padding-top: 24px; }
  h1 { font-size: 25px; }
  .frames { grid-template-columns: minmax(0, 1fr); }
  .crops { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 12px; }
  .cards { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .cards strong { font-size: 22px; }
  .facts { grid-template-columns: minmax(0, 1fr); }
  th, td { padding: 6px 10px; }
  tbody th, thead th:first-child { position: sticky; left: 0; }
  tbody th { white-space: normal; overflow-wrap: anywhere; min-width: 9.5em; max-width: 11em; }
}
@media print { .scroll { overflow: visible; } section { break-inside: avoid; } }
"""
