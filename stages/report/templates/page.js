// CSS does the filtering; this adds the buttons "all" and "none" and a count, and opens the scene that the address names.
document.documentElement.classList.add("scripted");

const boxes = [...document.querySelectorAll(".filter input")];
const count = document.querySelector(".filter output");
const updateCount = () => {
  count.textContent = `${boxes.filter((box) => box.checked).length} of ${boxes.length} shown`;
};
for (const box of boxes) box.addEventListener("change", updateCount);
for (const button of document.querySelectorAll(".filter button")) {
  button.addEventListener("click", () => {
    for (const box of boxes) box.checked = button.value === "all";
    updateCount();
  });
}
addEventListener("pageshow", updateCount); // a browser may restore the state of the boxes after a reload

const scenes = [...document.querySelectorAll(".scene")];
const dialog = document.querySelector("dialog");
let shown = -1;

function openAddressedScene() {
  const index = scenes.findIndex((scene) => `#${scene.id}` === location.hash);
  if (index < 0) {
    dialog.close();
    return;
  }
  shown = index;
  const scene = scenes[shown].cloneNode(true);
  scene.removeAttribute("id");
  scene.querySelector("a").removeAttribute("href");
  for (const details of scene.querySelectorAll("details")) details.open = true;
  for (const group of scene.querySelectorAll("[tabindex]")) group.removeAttribute("tabindex");
  dialog.querySelector(".pages").replaceChildren(scene);
  dialog.querySelector(".count").textContent = `${shown + 1} of ${scenes.length}`;
  dialog.setAttribute("aria-label", scene.querySelector("h3").textContent);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function step(by) {
  const next = (shown + by + scenes.length) % scenes.length;
  location.replace(`#${scenes[next].id}`);
}

if (scenes.length) {
  addEventListener("hashchange", openAddressedScene);
  dialog.addEventListener("close", () => {
    if (scenes.some((scene) => `#${scene.id}` === location.hash)) history.replaceState(null, "", " ");
    scenes[shown].querySelector("a").focus();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  for (const button of dialog.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => step(Number(button.dataset.step)));
  }
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  openAddressedScene();
}
