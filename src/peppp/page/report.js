"use strict";
/* The behaviour of the page. The functions of the first part depend only on their arguments, so that the tests
   can run them in node; the second part changes the document. Text is always set as text, never as HTML. */

const STANDINGS = ["picked", "frontier", "dominated", "over budget"];

/** Whether the measured error replaces the estimate; otherwise it is one noisy run, and the estimate counts. */
const settles = (row) => row.settled !== false && row.measured !== null;
/** The error that decides the pick. */
const errorOf = (row) => (settles(row) ? row.measured : row.estimated);
const kindOf = (row) => (settles(row) ? "measured" : "estimated");

/** Index of the row of least error within the budget; null if none fits. Errors within the tolerance tie; among
    ties, the least memory wins, then the least error, then the earlier row. */
function pickWithin(rows, budget, tolerance = 0) {
  const fitting = rows.map((row, index) => ({ row, index })).filter(({ row }) => row.total <= budget);
  if (!fitting.length) return null;
  const limit = Math.min(...fitting.map(({ row }) => errorOf(row))) + tolerance;
  const near = fitting.filter(({ row }) => errorOf(row) <= limit);
  near.sort((a, b) => a.row.total - b.row.total || errorOf(a.row) - errorOf(b.row) || a.index - b.index);
  return near[0].index;
}

/** Index of the row that needs least memory: its total is the smallest budget that works. */
const smallest = (rows) => sortedRows(rows, (row) => row.total, false)[0];

/** The status of a row at a budget: one of STANDINGS. */
function standing(page, index, budget, picked) {
  if (index === picked) return "picked";
  if (page.rows[index].total > budget) return "over budget";
  return page.frontier.includes(index) ? "frontier" : "dominated";
}

/** The least 1, 2 or 5 times a power of ten that divides the span into at most `count` steps. */
function niceStep(span, count) {
  const power = 10 ** Math.floor(Math.log10(span / count));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => span / step <= count * (1 + 1e-9));
}

function ticks(low, high, count) {
  const step = niceStep(high - low, count);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return Array.from({ length: last - first + 1 }, (_, k) => {
    const value = (first + k) * step;
    return { value, text: fixed(value, digits) };
  });
}

/** The slider's range, in whole steps, a little wider than the range of memory; a distant budget is excluded.
    A few rows that need far more than all others lie beyond it, unless the budget reaches them. */
function memoryRange(rows, budget) {
  const totals = rows.map((row) => row.total).sort((a, b) => a - b);
  let low = totals[0];
  let high = totals.at(-1);
  const few = Math.ceil(0.9 * totals.length) - 1; // the rows up to this one stay
  const isGap = (total, i) => i >= few && i > 0 && totals[i + 1] - total > 0.4 * (total - low);
  const last = totals.findIndex(isGap);
  if (last > 0 && budget <= totals[last]) high = totals[last];
  const span = high - low || Math.max(1, high / 10);
  if (budget > low - span / 2 && budget < high + span / 2) {
    low = Math.min(low, budget);
    high = Math.max(high, budget);
  }
  const step = Math.max(1, niceStep(span, 400));
  const outwards = (value, round) => Math.max(0, round(value / step) * step);
  const margin = 0.05 * span;
  return { low: outwards(low - margin, Math.floor), high: outwards(high + margin, Math.ceil), step };
}

/** What is said about the rows that lie beyond the memory axis; empty if there are none. */
function beyondAxis(rows, high, digits) {
  const beyond = rows.filter((row) => row.total > high).sort((a, b) => a.total - b.total);
  if (!beyond.length) return "";
  if (beyond.length > 2) {
    return `${beyond.length} more, up to ${megabytes(beyond.at(-1).total, digits)} \u2192`;
  }
  return `${beyond.map((row) => `${row.configuration} ${megabytes(row.total, digits)}`).join(", ")} \u2192`;
}

/** The range of the error axis, in percent: it holds all points and the intervals of the frontier. */
function errorRange(page) {
  const errors = page.rows.flatMap((row) => [row.estimated ?? row.measured, errorOf(row)]);
  const intervals = page.frontier.flatMap((index) => page.rows[index].interval ?? []);
  const reference = page.proof?.fp32_error ?? errors[0];
  const values = [...errors, ...intervals, reference].map((error) => 100 * error);
  const low = Math.min(...values);
  const high = Math.max(...values);
  const margin = 0.08 * (high - low || 1);
  return { low: low - margin, high: high + margin };
}

/** Indices of the rows, sorted by a value; rows without a value come last in either direction. */
function sortedRows(rows, valueOf, descending) {
  const sign = descending ? -1 : 1;
  const compare = (a, b) => (a === b ? 0 : a === null ? 1 : b === null ? -1 : a < b ? -sign : sign);
  return rows.map((_, index) => index).sort((a, b) => compare(valueOf(rows[a], a), valueOf(rows[b], b)));
}

/** The value by which a column of the table is sorted. */
function columnValue(key, row, index, standing) {
  if (key === "configuration") return index;
  if (key === "standing") return STANDINGS.indexOf(standing);
  if (key === "interval") return row.interval?.[0] ?? null;
  return row.memory[key] ?? row[key];
}

const fixed = (value, digits) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const percent = (error, digits) => `${fixed(100 * error, digits.percent)}%`;
const megabytes = (bytes, digits) => `${fixed(bytes / 1e6, digits.megabytes)} MB`;

/** Megabytes, rounded up because they must suffice, and the exact bytes. */
function enough(bytes, digits) {
  const unit = 10 ** (6 - digits.megabytes);
  return `${megabytes(Math.ceil(bytes / unit) * unit, digits)} (${fixed(bytes, 0)} bytes)`;
}

/** The remark next to a row's error. */
function asideOf(row, digits) {
  const interval = row.interval?.map((error) => percent(error, digits)).join("\u00a0–\u00a0");
  const parts = [];
  if (row.measured === null) parts.push("not measured");
  else if (!settles(row)) parts.push(`a run had ${percent(row.measured, digits)}`);
  else if (row.estimated !== null) parts.push(`estimated ${percent(row.estimated, digits)}`);
  if (interval) parts.push(`interval ${interval}`);
  return parts.join(", ");
}

// ---------------------------------------------------------------------------------------------- the document

const find = (selector) => document.querySelector(selector);

/** Set the texts of the elements that are named by `data-text`. */
function fill(texts) {
  for (const [name, text] of Object.entries(texts)) find(`[data-text="${name}"]`).textContent = text;
}

/** Append a new element to the parent, in the parent's namespace (HTML or SVG). */
function add(parent, name, attributes = {}, text = "") {
  const element = document.createElementNS(parent.namespaceURI, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return parent.appendChild(element);
}

/** Draw what does not depend on the budget; returns the scales. A unit is a pixel, so that text keeps its size. */
function drawChart(page, range) {
  const width = find("#plot").clientWidth;
  const height = Math.round(Math.min(500, Math.max(320, 0.72 * width)));
  const box = { left: 44, right: width - 12, top: 46, bottom: height - 50 };
  const errors = errorRange(page);
  const along = (share, from, to) => from + share * (to - from);
  const chart = {
    box,
    range,
    errors,
    label: page.counts === "peak" ? "peak of a training step (MB)" : "memory of one training (MB)",
    x: (bytes) => along((bytes - range.low) / (range.high - range.low), box.left, box.right),
    y: (error) => along((100 * error - errors.low) / (errors.high - errors.low), box.bottom, box.top),
  };
  find("#plot svg").setAttribute("viewBox", `0 0 ${width} ${height}`);
  drawAxes(find("#axes"), chart);
  drawPoints(find("#points"), page, chart);
  return chart;
}

function drawAxes(layer, { box, range, errors, label, x, y }) {
  layer.replaceChildren();
  for (const { value, text } of ticks(range.low / 1e6, range.high / 1e6, (box.right - box.left) / 75)) {
    const at = x(value * 1e6);
    add(layer, "path", { class: "grid", d: `M${at} ${box.top}V${box.bottom}` });
    add(layer, "text", { x: at, y: box.bottom + 25, class: "middle" }, text);
  }
  for (const { value, text } of ticks(errors.low, errors.high, (box.bottom - box.top) / 45)) {
    const at = y(value / 100);
    add(layer, "path", { class: "grid", d: `M${box.left} ${at}H${box.right}` });
    add(layer, "text", { x: box.left - 8, y: at + 4, class: "end" }, `${text}%`);
  }
  add(layer, "path", { class: "axis", d: `M${box.left} ${box.bottom}H${box.right}` });
  add(layer, "text", { x: box.left, y: box.bottom + 44 }, label);
  add(layer, "text", { x: 0, y: 14 }, "test error, estimated or measured");
}

/** Draw the fp32 line, the frontier, then the points; measured and frontier points come last, so lie on top. */
function drawPoints(layer, page, { box, range, x, y }) {
  layer.replaceChildren();
  const reference = page.proof?.fp32_error ?? null;
  if (reference !== null) {
    add(layer, "path", { class: "reference", d: `M${box.left} ${y(reference)}H${box.right}` });
    const place = { x: box.left + 6, y: y(reference) + 14 }; // few points lie below it on the left
    add(layer, "text", place, `fp32, measured ${percent(reference, page.digits)}`);
  }
  const beyond = beyondAxis(page.rows, range.high, page.digits);
  add(layer, "text", { x: box.right, y: box.bottom + 44, class: "end" }, beyond);
  // By ascending memory.
  const steps = page.frontier.map((index) => page.rows[index]).filter((row) => row.total <= range.high);
  const start = `M${x(steps[0].total)} ${y(errorOf(steps[0]))}`;
  const path = steps.map((row) => `H${x(row.total)}V${y(errorOf(row))}`).join("");
  add(layer, "path", { class: "frontier", d: `${start}${path}H${box.right}` });
  const weight = (row, index) => 2 * (row.measured !== null) + page.frontier.includes(index);
  const drawn = (index) => page.rows[index].total <= range.high;
  for (const index of sortedRows(page.rows, weight, false).filter(drawn)) {
    const best = page.frontier.includes(index) ? " best" : "";
    const point = add(layer, "g", { class: `point${best}`, "data-row": index });
    drawPoint(point, page.rows[index], best, x(page.rows[index].total), y, box);
  }
}

/** Draw a circle (a triangle for a precision by name) at the estimate, with its interval; if the row is measured,
    also a square at that error and a line to the estimate. A measured row may have no estimate. */
function drawPoint(point, row, best, at, y, box) {
  if (row.interval !== null) {
    // The axis holds the intervals of the frontier; longer ones end at its ends.
    const [low, high] = row.interval.map((error) => Math.min(box.bottom, Math.max(box.top, y(error))));
    add(point, "path", { class: "interval", d: `M${at - 3} ${low}h6m-3 0V${high}m-3 0h6` });
  }
  const [estimated, measured] = [y(row.estimated ?? row.measured), y(row.measured ?? row.estimated)];
  const radius = row.measured !== null ? 2.5 : best ? 4.5 : 3.6;
  if (row.named) {
    const [side, up, down] = [1.2 * radius, 1.3 * radius, 0.8 * radius];
    const d = `M${at} ${estimated - up}l${side} ${up + down}h${-2 * side}Z`;
    add(point, "path", { class: `estimate${best}`, d });
  } else {
    add(point, "circle", { class: `estimate${best}`, cx: at, cy: estimated, r: radius });
  }
  if (row.measured === null) return;
  add(point, "path", { class: "link", d: `M${at} ${estimated}V${measured}` });
  add(point, "rect", { class: "measured", x: at - 4.5, y: measured - 4.5, width: 9, height: 9 });
}

/** Draw the budget line, the hatched region beyond it, and the ring around the pick. */
function drawBudget(page, { box, range, x, y }, budget, picked) {
  const marks = find("#marks");
  const at = Math.min(box.right, Math.max(box.left, x(budget)));
  find("#over").setAttribute("d", `M${at} ${box.top}H${box.right}V${box.bottom}H${at}Z`);
  document.querySelectorAll("[data-row]").forEach((mark) => {
    mark.classList.toggle("over", page.rows[mark.dataset.row].total > budget);
  });
  marks.replaceChildren();
  add(marks, "path", { class: "budget-line", d: `M${at} ${box.top - 8}V${box.bottom}` });
  const anchor = at > box.right - 60 ? "end" : at < box.left + 60 ? "" : "middle";
  add(marks, "text", { x: at, y: box.top - 14, class: `strong ${anchor}` }, megabytes(budget, page.digits));
  if (picked === null) return;
  const row = page.rows[picked];
  if (row.total > range.high) return;
  const [cx, cy] = [x(row.total), y(errorOf(row))];
  add(marks, "circle", { class: "ring", cx, cy, r: 9.5 });
  // The area left of and below the pick has no points: they would have been picked instead.
  const roomy = cx - box.left > 9 * row.configuration.length;
  const place = roomy ? { x: cx, class: "strong mono end" } : { x: box.left + 4, class: "strong mono" };
  add(marks, "text", { ...place, y: cy + 25 }, row.configuration);
}

function showPick(page, budget, picked) {
  const { rows, digits } = page;
  find("#none").hidden = picked !== null;
  find("#picked").hidden = picked === null;
  const least = rows[smallest(rows)];
  fill({ tight: megabytes(budget, digits) });
  fill({ least: enough(least.total, digits), lightest: least.configuration });
  if (picked === null) return;
  const row = rows[picked];
  fill({
    within: megabytes(budget, digits),
    name: row.configuration,
    error: percent(errorOf(row), digits),
    kind: kindOf(row),
    aside: asideOf(row, digits),
    used: `${megabytes(row.total, digits)} of ${megabytes(budget, digits)}`,
  });
  find('[data-text="kind"]').className = `kind ${kindOf(row)}`;
  showBits("a", row.format_a);
  showBits("b", row.format_b);
  const parts = page.counts === "peak" ? { peak: row.total } : row.memory;
  showMemory({ ...parts, free: budget - row.total }, budget, digits);
}

function showBits(which, format) {
  const count = { s: 1, e: format.exponent_bits, m: format.mantissa_bits };
  fill({ [`format-${which}`]: `${format.text}, ${count.s + count.e + count.m} bits` });
  const cells = find(`#bits-${which}`);
  cells.setAttribute("aria-label", `1 sign bit, ${count.e} exponent bits, ${count.m} mantissa bits`);
  cells.replaceChildren();
  for (const kind of ["s", "e", "m"]) {
    for (let k = 0; k < count[kind]; k++) add(cells, "span", { class: kind }, kind);
  }
}

function showMemory(memory, budget, digits) {
  for (const [part, bytes] of Object.entries(memory)) {
    const segment = find(`.bar .${part}`);
    segment.style.flexGrow = bytes / budget;
    segment.firstChild.hidden = bytes / budget < 0.05; // no room for the letter
    fill({ [part]: megabytes(bytes, digits), [`${part}-share`]: `${((100 * bytes) / budget).toFixed(1)}%` });
  }
}

function showTip(page, chart, index) {
  const tip = find("#tip");
  tip.hidden = index === null || page.rows[index].total > chart.range.high;
  find("#active").replaceChildren();
  if (index === null || page.rows[index].total > chart.range.high) return;
  const row = page.rows[index];
  const digits = page.digits;
  const [cx, cy] = [chart.x(row.total), chart.y(errorOf(row))];
  add(find("#active"), "circle", { cx, cy, r: 7 });
  fill({
    "tip-name": row.configuration,
    "tip-error": `${kindOf(row)} ${percent(errorOf(row), digits)} at ${megabytes(row.total, digits)}`,
    "tip-aside": asideOf(row, digits),
  });
  const left = cx + 16 + tip.offsetWidth < chart.box.right ? cx + 16 : cx - 16 - tip.offsetWidth;
  tip.style.left = `${Math.max(0, left)}px`;
  tip.style.top = `${Math.max(0, cy - tip.offsetHeight - 8)}px`;
}

/** The row whose point lies nearest to a place on the chart; null beyond 24 pixels. */
function nearest(page, chart, left, top) {
  const distance = (row) => Math.hypot(chart.x(row.total) - left, chart.y(errorOf(row)) - top);
  const index = sortedRows(page.rows, distance, false)[0];
  return distance(page.rows[index]) < 24 ? index : null;
}

function makeSortable(page, body) {
  const headings = [...document.querySelectorAll("thead th[data-key]")];
  const lines = [...body.rows]; // still in the order of page.rows
  for (const heading of headings) {
    heading.firstElementChild.onclick = () => {
      const descending = heading.ariaSort === "ascending";
      const standingOf = (index) => lines[index].cells[1].textContent;
      const valueOf = (row, index) => columnValue(heading.dataset.key, row, index, standingOf(index));
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.ariaSort = descending ? "descending" : "ascending";
      body.append(...sortedRows(page.rows, valueOf, descending).map((index) => lines[index]));
    };
  }
}

function offerThemes(button) {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => (button.textContent = isDark() ? "Light theme" : "Dark theme");
  button.onclick = () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    name();
  };
  system.onchange = name;
  button.hidden = false;
  name();
}

function main() {
  find(".chart").hidden = false;
  const page = JSON.parse(find("#page").textContent);
  const range = memoryRange(page.rows, page.budget);
  const slider = find("#budget");
  const body = find("tbody");
  const lines = [...body.rows];
  let budget = page.budget; // exact, whereas the slider has whole steps
  let chart = null;

  function move(bytes) {
    budget = bytes;
    const picked = pickWithin(page.rows, budget, page.tolerance);
    drawBudget(page, chart, budget, picked);
    showPick(page, budget, picked);
    fill({ budget: megabytes(budget, page.digits), bytes: `${fixed(budget, 0)} bytes` });
    lines.forEach((line, index) => {
      line.classList.toggle("picked", index === picked);
      line.cells[1].textContent = standing(page, index, budget, picked);
    });
    slider.value = budget;
    const answer = picked === null ? "no configuration fits" : page.rows[picked].configuration;
    slider.ariaValueText = `${megabytes(budget, page.digits)}: ${answer}`;
    return picked;
  }

  /** Scroll the picked line to the middle of the table's box, without moving the page. */
  function follow(picked) {
    const box = find(".scroll");
    if (picked !== null) box.scrollTop = lines[picked].offsetTop - box.clientHeight / 2;
  }

  function draw() {
    chart = drawChart(page, range);
    showTip(page, chart, null);
    const { left, right, bottom } = chart.box; // the centre of the 20 pixel thumb is the budget
    slider.style.cssText = `left: ${left - 10}px; width: ${right - left + 20}px; top: ${bottom - 12}px`;
    return move(budget);
  }

  Object.assign(slider, { min: range.low, max: range.high, step: range.step });
  slider.oninput = () => follow(move(Number(slider.value)));
  find("#use").onclick = () => follow(move(page.rows[smallest(page.rows)].total));

  // Pointing at a point or its table line shows the tip; clicking makes its memory the budget.
  const svg = find("#plot svg");
  const pointAt = (event) => nearest(page, chart, event.offsetX, event.offsetY);
  const lineAt = (event) => Number(event.target.closest("tr").dataset.row);
  const hide = () => showTip(page, chart, null);
  svg.onpointermove = (event) => showTip(page, chart, pointAt(event));
  svg.onclick = (event) => pointAt(event) !== null && follow(move(page.rows[pointAt(event)].total));
  body.onclick = (event) => move(page.rows[lineAt(event)].total);
  body.onpointerover = (event) => showTip(page, chart, lineAt(event));
  body.addEventListener("focusin", body.onpointerover);
  svg.onpointerleave = body.onpointerleave = hide;
  body.addEventListener("focusout", hide);

  makeSortable(page, body);
  offerThemes(find("#theme"));
  follow(draw());
  new ResizeObserver(() => requestAnimationFrame(draw)).observe(find("#plot"));
}

if (typeof document === "undefined") {
  module.exports = { pickWithin, smallest, standing, ticks, memoryRange, beyondAxis, sortedRows, asideOf, fixed, enough };
} else if (find("#page")) {
  main();
}
