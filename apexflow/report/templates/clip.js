"use strict";
// Plays a clip's frames, and moves the cursor of its curves along.
(() => {
  const data = document.getElementById("player");
  if (!data) return;
  const { numbers, pictures, names } = JSON.parse(data.textContent);
  const [image, position, play, output] = ["frame", "position", "play", "number"].map((id) =>
    document.getElementById(id));
  const charts = [...document.querySelectorAll("svg.chart")];
  let timer = null;

  function show(i) {
    const number = numbers[i];
    image.src = pictures[i];
    position.value = i;
    output.textContent = `frame ${number}${names[number] ? ` (${names[number]})` : ""}`;
    for (const chart of charts) {
      const { first, last, left, width } = chart.dataset;
      const x = Number(left) + (Number(width) * (number - first)) / (last - first);
      const cursor = chart.querySelector(".cursor");
      cursor.setAttribute("transform", `translate(${x} 0)`);
      cursor.setAttribute("visibility", "visible");
    }
  }

  position.addEventListener("input", () => show(Number(position.value)));
  play.addEventListener("click", () => {
    if (timer) {
      clearInterval(timer);
      timer = null;
    } else {
      timer = setInterval(() => show((Number(position.value) + 1) % numbers.length), 80);
    }
    play.setAttribute("aria-pressed", String(Boolean(timer)));
    play.textContent = timer ? "pause" : "play";
  });
  show(0);
})();
