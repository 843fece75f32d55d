"use strict";
// The table of clips: sorted, filtered, a hundred rows at a time; marks; the viewer.
(() => {
  const STEP = 100;
  const MARKS = ["good", "bad"];
  const COLUMNS = ["dataset", "subject", "clip", "mark", "note"];
  const element = (id) => document.getElementById(id);
  const { store, hash, files, thumb, rows } = JSON.parse(element("data").textContent);
  const body = document.querySelector("#clips-table tbody");
  const storageKey = `apexflow-marks ${store} ${hash}`;
  rows.forEach((row, place) => {
    row.place = place;
    row.name = row.key.join("/");
    row.text = [row.name, row.class, row.flags, row.reason].join(" ").toLowerCase();
  });
  let shown = rows;
  let count = STEP;
  let order = { by: "place", down: false };
  let open = null;
  let marks = stored();

  function stored() {
    try {
      return JSON.parse(localStorage.getItem(storageKey)) || {};
    } catch {
      return {}; // a browser that keeps nothing for files
    }
  }

  function keep() {
    try {
      localStorage.setItem(storageKey, JSON.stringify(marks));
    } catch {
      // The marks live as long as the page; "save marks" keeps them.
    }
  }

  function make(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function spark(text, label) {
    if (!text) return "";
    const points = [...text].map((digit, i) => {
      const x = text.length > 1 ? (100 * i) / (text.length - 1) : 50;
      return `${x.toFixed(1)},${(23 - (22 * parseInt(digit, 36)) / 35).toFixed(1)}`;
    });
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    svg.setAttribute("viewBox", "0 0 100 24");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("class", "spark");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
    const line = document.createElementNS(space, "polyline");
    line.setAttribute("points", points.join(" "));
    line.setAttribute("vector-effect", "non-scaling-stroke");
    svg.append(line);
    return svg;
  }

  function marker(row) {
    const mark = marks[row.name] || { mark: "", note: "" };
    const box = make("span", { class: "mark", "data-name": row.name });
    for (const name of MARKS) {
      const pressed = String(mark.mark === name);
      const button = make("button", { type: "button", "aria-pressed": pressed }, name);
      button.addEventListener("click", () => setMark(row, { mark: mark.mark === name ? "" : name }));
      box.append(button, " ");
    }
    const note = make("input", { placeholder: "note", "aria-label": `note on ${row.name}`, size: 12 });
    note.value = mark.note;
    note.addEventListener("change", () => setMark(row, { note: note.value }));
    box.append(note);
    return box;
  }

  function setMark(row, change) {
    const mark = { mark: "", note: "", ...marks[row.name], ...change };
    if (mark.mark || mark.note) marks[row.name] = mark;
    else delete marks[row.name];
    keep();
    for (const old of document.querySelectorAll(".mark[data-name]")) {
      if (old.dataset.name === row.name) old.replaceWith(marker(row));
    }
  }

  function link(row, ...children) {
    if (!row.page) return make("span", {}, ...children);
    const made = make("a", { href: `${files}/clips/${row.id}.html` }, ...children);
    made.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      view(row);
    });
    return made;
  }

  function line(row) {
    const cells = {
      pictures: row.thumb
        ? link(row, make("img", {
            loading: "lazy", src: `${files}/clips/${row.id}.jpg`, alt: `${row.name}: ${thumb}`,
          }))
        : "",
      clip: link(row, row.name),
      class: row.class,
      "flags, reason": [row.flags, row.reason || (row.status === "done" ? "" : row.status)]
        .filter(Boolean).join(" · "),
      score: [row.score ?? "", spark(row.scores, `score over ${row.name}`)],
      "shift, px": row.shift ?? "",
      motion: spark(row.motion, `motion over ${row.name}`),
      mark: marker(row),
    };
    const made = make("tr");
    for (const [label, value] of Object.entries(cells)) {
      made.append(make("td", { "data-label": label }, ...[value].flat()));
    }
    if (row.status === "failed" || row.flags) made.children[3].className = "bad";
    return made;
  }

  // Paper has all pictures, those that were not scrolled to as well.
  addEventListener("beforeprint", () => {
    for (const image of body.querySelectorAll("img")) image.loading = "eager";
  });

  function compare(a, b) {
    const [x, y] = [a[order.by], b[order.by]];
    // What is unknown or empty comes last, whatever the direction.
    if (x === y) return a.place - b.place;
    if (x === null || x === "") return 1;
    if (y === null || y === "") return -1;
    const found = typeof x === "number"
      ? x - y
      : String(x).localeCompare(String(y), undefined, { numeric: true });
    return order.down ? -found : found;
  }

  function wanted(row) {
    const which = element("which").value;
    if (which === "flagged" && !row.flags) return false;
    if (which === "marked" && !marks[row.name]) return false;
    if (["failed", "done", "to do"].includes(which) && row.status !== which) return false;
    return element("find").value.toLowerCase().split(/\s+/).every((word) => row.text.includes(word));
  }

  function draw() {
    shown = rows.filter(wanted).sort(compare);
    body.replaceChildren(...shown.slice(0, count).map(line));
    element("count").textContent = `${Math.min(count, shown.length)} of ${shown.length} clips`;
    element("more").hidden = count >= shown.length;
  }

  function view(row) {
    open = row;
    element("title").textContent = row.name;
    element("viewer-mark").replaceChildren(marker(row));
    element("clip").src = `${files}/clips/${row.id}.html`;
    if (!element("viewer").open) element("viewer").showModal();
  }

  function step(by) {
    const list = shown.filter((row) => row.page);
    const next = list[list.indexOf(open) + by];
    if (next) view(next);
  }

  function cell(text) {
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function asCsv() {
    const lines = rows.filter((row) => marks[row.name]).map((row) => {
      const { mark, note } = marks[row.name];
      // A spreadsheet would execute what begins so.
      const safe = /^[=+\-@\t]/.test(note) ? `'${note}` : note;
      return [...row.key, mark, safe].map(cell).join(",");
    });
    return [COLUMNS.join(","), ...lines].join("\n") + "\n";
  }

  function parsed(text) {
    const cells = /(?:^|,|\r?\n)(?:"((?:[^"]|"")*)"|([^",\r\n]*))/g;
    const table = [];
    for (const found of text.matchAll(cells)) {
      if (!found[0].startsWith(",")) table.push([]);
      table.at(-1).push(found[1] === undefined ? found[2] : found[1].replaceAll('""', '"'));
    }
    return table;
  }

  async function load(file) {
    const [head, ...lines] = parsed((await file.text()).replace(/^\uFEFF/, ""));
    if (COLUMNS.some((name) => !head.includes(name))) {
      alert(`${file.name} is not a file of marks: it needs the columns ${COLUMNS.join(", ")}`);
      return;
    }
    const names = new Set(rows.map((row) => row.name));
    let unknown = 0;
    for (const line of lines.filter((one) => one.length > 1)) {
      const row = Object.fromEntries(head.map((name, i) => [name, line[i] ?? ""]));
      const name = [row.dataset, row.subject, row.clip].join("/");
      if (names.has(name)) marks[name] = { mark: row.mark, note: row.note };
      else unknown += 1;
    }
    keep();
    draw();
    if (unknown) alert(`${unknown} marks are of clips that this store does not have`);
  }

  for (const button of document.querySelectorAll("[data-sort]")) {
    button.addEventListener("click", () => {
      const by = button.dataset.sort;
      order = { by, down: order.by === by && !order.down };
      for (const head of document.querySelectorAll("#clips-table th")) head.removeAttribute("aria-sort");
      button.parentElement.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      draw();
    });
  }
  for (const id of ["find", "which"]) {
    element(id).addEventListener("input", () => {
      count = STEP;
      draw();
    });
  }
  element("more").addEventListener("click", () => {
    body.append(...shown.slice(count, count + STEP).map(line));
    count += STEP;
    element("count").textContent = `${Math.min(count, shown.length)} of ${shown.length} clips`;
    element("more").hidden = count >= shown.length;
  });
  element("close").addEventListener("click", () => element("viewer").close());
  element("previous").addEventListener("click", () => step(-1));
  element("next").addEventListener("click", () => step(1));
  element("export").addEventListener("click", () => {
    const url = URL.createObjectURL(new Blob([asCsv()], { type: "text/csv" }));
    make("a", { href: url, download: "marks.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  });
  element("import").addEventListener("change", (event) => {
    if (event.target.files.length) load(event.target.files[0]);
  });
  draw();
})();
