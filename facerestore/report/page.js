for (const input of document.querySelectorAll(".compare input")) {
  const show = () => {
    input.parentElement.style.setProperty("--at", input.value);
    input.setAttribute("aria-valuetext", Math.round(input.value) + " percent before");
  };
  input.addEventListener("input", show);
  show();
}
