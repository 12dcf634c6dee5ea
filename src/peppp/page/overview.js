/* The page of several tasks; it is loaded after report.js and uses its functions. */

/** The rows of one task, in the form that pickWithin expects. */
const rowsOf = (page, task) =>
  page.configurations.map((configuration, j) => ({
    configuration,
    total: task.totals[j],
    estimated: task.observed[j] === "1" ? null : task.errors[j],
    measured: task.observed[j] === "1" ? task.errors[j] : null,
  }));

/** The index at which each run of equal items starts. */
const starts = (list) => list.map((item, j) => (item !== list[j - 1] ? j : -1)).filter((j) => j >= 0);

const cellText = (page, task, row) =>
  `${task.name}, ${row.configuration}: ${kindOf(row)} ${percent(errorOf(row), page.digits)} at ` +
  megabytes(row.total, page.digits);

/** Draw the error matrix: a large square for a measured error, a small one for an estimate. */
function drawMatrix(page, tables) {
  const svg = find("#heat svg");
  const [cell, left, top, line] = [10, 170, 24, 16];
  const width = left + cell * page.configurations.length + 2;
  const height = top + line * tables.length + 2;
  for (const [key, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) {
    svg.setAttribute(key, value);
  }
  let free = 0; // where the last label ends
  for (const j of starts(page.formats_a)) {
    const x = left + cell * j;
    if (x < free) continue;
    add(svg, "text", { x, y: 14 }, page.formats_a[j]);
    free = x + 7 * page.formats_a[j].length + 6;
  }
  const span = page.most - page.least || 1;
  tables.forEach((rows, i) => {
    const y = top + line * i;
    const name = page.tasks[i].name;
    add(svg, "text", { x: left - 8, y: y + 12, class: "end" }, name.length > 22 ? `${name.slice(0, 21)}…` : name);
    rows.forEach((row, j) => {
      const measured = row.measured !== null;
      const side = measured ? { x: 0.5, y: 0.5, width: cell - 1, height: line - 1 } : { x: 3, y: 5, width: 4, height: 6 };
      const share = (errorOf(row) - page.least) / span;
      add(svg, "rect", {
        ...side,
        x: left + cell * j + side.x,
        y: y + side.y,
        class: "heat",
        style: `--error: ${share.toFixed(3)}`,
      });
    });
  });
  const cursor = add(svg, "rect", { class: "cursor", width: cell, height: line, visibility: "hidden" });
  let at = [0, 0];
  const show = (i, j) => {
    if (!tables[i]?.[j]) return;
    at = [i, j];
    const place = { x: left + cell * j, y: top + line * i, visibility: "visible" };
    for (const [key, value] of Object.entries(place)) cursor.setAttribute(key, value);
    fill({ cell: cellText(page, page.tasks[i], tables[i][j]) });
  };
  svg.onpointermove = (event) =>
    show(Math.floor((event.offsetY - top) / line), Math.floor((event.offsetX - left) / cell));
  const box = svg.parentElement; // focusable, as it may scroll
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  box.onfocus = () => show(...at);
  box.onkeydown = (event) => {
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    show(at[0] + step[0], at[1] + step[1]);
    const x = left + cell * at[1];
    if (x < box.scrollLeft || x > box.scrollLeft + box.clientWidth - cell) box.scrollLeft = x - box.clientWidth / 2;
  };
  find("#heat").hidden = false;
}

/** Draw the small chart of a task; returns a function that moves its ring and its budget line. */
function drawFrontier(page, task, rows, parent) {
  const range = memoryRange(rows, rows[0].total); // each chart has its own range, as tasks differ in size
  const box = { left: 38, right: 268, top: 8, bottom: 128 };
  const figure = add(parent, "figure");
  add(figure, "figcaption", {}, task.name);
  const svg = figure.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "svg"));
  svg.setAttribute("viewBox", "0 0 280 162");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Test error against memory of ${task.name}`);
  const errors = errorRange({ rows, frontier: task.frontier });
  const x = (bytes) => box.left + ((bytes - range.low) / (range.high - range.low)) * (box.right - box.left);
  const y = (error) => box.bottom - ((100 * error - errors.low) / (errors.high - errors.low)) * (box.bottom - box.top);
  for (const { value, text } of ticks(range.low / 1e6, range.high / 1e6, 4)) {
    add(svg, "path", { class: "grid", d: `M${x(value * 1e6)} ${box.top}V${box.bottom}` });
    add(svg, "text", { x: x(value * 1e6), y: box.bottom + 15, class: "middle" }, text);
  }
  for (const { value, text } of ticks(errors.low, errors.high, 4)) {
    add(svg, "path", { class: "grid", d: `M${box.left} ${y(value / 100)}H${box.right}` });
    add(svg, "text", { x: box.left - 5, y: y(value / 100) + 4, class: "end" }, `${text}%`);
  }
  add(svg, "text", { x: (box.left + box.right) / 2, y: 159, class: "middle" }, "memory (MB)");
  const best = task.frontier.map((j) => rows[j]);
  const path = best.map((row) => `H${x(row.total)}V${y(errorOf(row))}`).join("");
  add(svg, "path", { class: "frontier", d: `M${x(best[0].total)} ${y(errorOf(best[0]))}${path}H${box.right}` });
  for (const row of rows) {
    const [cx, cy] = [x(row.total), y(errorOf(row))];
    if (row.measured === null) add(svg, "circle", { class: "estimate", cx, cy, r: 2.4 });
    else add(svg, "rect", { class: "measured", x: cx - 2.5, y: cy - 2.5, width: 5, height: 5 });
  }
  const marks = add(svg, "g");
  const answer = add(figure, "p");
  return (budget, picked) => {
    marks.replaceChildren();
    const at = Math.min(box.right, Math.max(box.left, x(budget)));
    add(marks, "path", { class: "budget-line", d: `M${at} ${box.top}V${box.bottom}` });
    answer.replaceChildren();
    if (picked === null) return void (answer.textContent = "none fits");
    const row = rows[picked];
    add(marks, "circle", { class: "ring", cx: x(row.total), cy: y(errorOf(row)), r: 6.5 });
    add(answer, "b", { class: "mono" }, row.configuration);
    add(answer, "span", {}, ` ${percent(errorOf(row), page.digits)} `);
    add(answer, "span", { class: `kind ${kindOf(row)}` }, kindOf(row));
  };
}

function overview() {
  const page = JSON.parse(find("#tasks").textContent);
  const tables = page.tasks.map((task) => rowsOf(page, task));
  const slider = find("#budget");
  const lines = [...find("tbody").rows];
  const range = memoryRange(tables.flat(), page.budget);
  drawMatrix(page, tables);
  const marks = page.tasks.map((task, i) => drawFrontier(page, task, tables[i], find("#frontiers")));

  function move(budget) {
    let fitting = 0;
    tables.forEach((rows, i) => {
      const picked = pickWithin(rows, budget);
      const row = picked === null ? null : rows[picked];
      fitting += row !== null;
      marks[i](budget, picked);
      const [, name, error, kind, total] = lines[i].cells;
      name.textContent = row?.configuration ?? "none fits";
      error.textContent = row ? percent(errorOf(row), page.digits) : "";
      kind.replaceChildren();
      if (row) add(kind, "span", { class: `kind ${kindOf(row)}` }, kindOf(row));
      total.textContent = row ? fixed(row.total / 1e6, page.digits.megabytes) : "";
    });
    fill({ budget: megabytes(budget, page.digits), bytes: `${fixed(budget, 0)} bytes` });
    slider.value = budget;
    slider.ariaValueText = `${megabytes(budget, page.digits)}: ${fitting} of ${tables.length} tasks have a pick`;
  }

  Object.assign(slider, { min: range.low, max: range.high, step: range.step, hidden: false });
  slider.oninput = () => move(Number(slider.value));
  find("#frontier-legend").hidden = false;
  offerThemes(find("#theme"));
  move(page.budget);
}

overview();
