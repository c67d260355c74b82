"use strict";
for (const compare of document.querySelectorAll(".compare")) {
  const range = compare.querySelector("input");
  const move = () => compare.style.setProperty("--at", range.value + "%");
  range.addEventListener("input", move);
  move();
}
const hidden = () =>
  [...document.querySelectorAll("input[data-grade]:not(:checked)")].map((box) => box.dataset.grade).join(" ");
document.addEventListener("change", (event) => {
  if (event.target.matches("input[data-grade]")) {
    for (const box of document.querySelectorAll(`input[data-grade="${event.target.dataset.grade}"]`))
      box.checked = event.target.checked;
    document.body.dataset.hidden = hidden();
  }
});
