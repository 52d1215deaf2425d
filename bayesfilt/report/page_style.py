"""How the page looks: on a phone, on a screen, in the dark, on paper."""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --faint: #5c5c5c;
  --line: #d5d5d5; --box: #f4f4f4; --link: #0a4690; --yes: #1a6b40; --no: #a51243;
  --part: #8a5a00; --open: #5c5c5c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #161616; --faint: #a8a8a8;
  --line: #3d3d3d; --box: #222; --link: #8db8f2; --yes: #6fcf97; --no: #f58aa8; --part: #e6b73f;
  --open: #a8a8a8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
a { color: var(--link); }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 0 0 .3rem; line-height: 1.25; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { margin: .4rem 0; max-width: 46rem; }
nav li { margin: .5rem 0; max-width: 60rem; }
nav ol { padding-left: 2rem; }
section { border-top: 2px solid var(--line); margin-top: 2rem; padding-top: 1rem; }
.name { color: var(--faint); font-size: .85rem; margin: 0; }
.answer { font-size: 1.1rem; }
.tone { font-weight: 600; }
.tone.yes, tr.yes td:nth-child(2) { color: var(--yes); }
.tone.no, tr.no td:nth-child(2) { color: var(--no); }
.tone.part { color: var(--part); }
.tone.open, tr.open td:nth-child(2) { color: var(--open); }
.warning { border-left: 4px solid var(--part); padding-left: .6rem; }
.figures { display: grid; gap: 1.2rem; margin: 1rem 0; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0; min-width: 0; max-width: 33rem; }
figure > svg, figure > img { display: block; width: 100%; height: auto; background: #fff; }
figcaption { font-size: .85rem; color: var(--faint); margin-top: .3rem; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
  border-bottom: 1px solid var(--line); min-width: 4.5rem; }
th { overflow-wrap: normal; }
tr[class] td:nth-child(2) { font-weight: 600; }
tr[class] td:first-child { min-width: 15rem; }
details { margin-top: 1.2rem; }
summary { cursor: pointer; color: var(--link); }
dl { display: grid; grid-template-columns: minmax(7rem, 16rem) 1fr; gap: .1rem .8rem;
  font-size: .85rem; margin: 0; }
dt { color: var(--faint); }
dd { margin: 0; }
@media (max-width: 40rem) {
  thead { display: none; }
  table, tbody, tr, td { display: block; width: 100%; }
  tr { border-bottom: 1px solid var(--line); padding: .5rem 0; }
  td, tr[class] td:first-child { border: 0; padding: .1rem 0; min-width: 0; }
  td:empty { display: none; }
  td::before { content: attr(data-label) ": "; color: var(--faint); font-weight: 400; }
}
@media print {
  :root { --ink: #000; --paper: #fff; --faint: #444; --line: #bbb; --yes: #1a6b40; --no: #a51243;
    --part: #8a5a00; --open: #444; color-scheme: light; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  section { break-before: page; border: 0; margin: 0; }
  figure, tr, dt, dd { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  /* Its numbers are points, which a browser takes for pixels: left alone, letters are of 6 points.
     With its heading on one page: what is taller would be cut in two. */
  figure { max-width: 100%; }
  figure > svg, figure > img { width: 12cm; max-width: 100%; max-height: 19cm; }
  figure > img { object-fit: contain; object-position: left; }
  dl { grid-template-columns: max-content 1fr max-content 1fr; font-size: 7.5pt; }
  table { font-size: 7.5pt; line-height: 1.25; width: 100%; }
  .scroll { overflow: visible; }
  .data, summary { display: none; }
  details::details-content { content-visibility: visible; display: block; block-size: auto; }
}
""".strip()
