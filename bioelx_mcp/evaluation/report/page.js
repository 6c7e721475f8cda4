for (const form of document.querySelectorAll("form.filter")) {
  const errors = form.parentElement.querySelectorAll("details.error");
  const count = form.querySelector("output");
  const show = () => {
    const language = form.elements.language.value, kind = form.elements.kind.value;
    const text = form.elements.text.value.toLowerCase();
    let shown = 0;
    for (const error of errors) {
      const fits = (!language || error.dataset.language === language) && (!kind || error.dataset.kind === kind) &&
        (!text || error.textContent.toLowerCase().includes(text));
      error.classList.toggle("hidden", !fits);
      shown += fits;
    }
    count.textContent = shown + " shown";
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.classList.remove("hidden");
  show();
}
