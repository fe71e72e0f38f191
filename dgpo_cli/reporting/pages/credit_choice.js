// Choices: one of several buttons. They are made once and marked anew, so that the focus stays where it is.
function makeChoice(box, values, buttons, onChoose) {
  buttons.forEach((button, i) => {
    button.type = "button";
    button.setAttribute("role", "radio");
    button.addEventListener("click", () => onChoose(values[i]));
  });
  box.append(...buttons);
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  box.addEventListener("keydown", (event) => {
    const able = buttons.filter((button) => !button.disabled), at = able.indexOf(event.target);
    if (at < 0 || !steps[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const next = able[(at + steps[event.key] + able.length) % able.length];
    next.focus();
    next.click();
  });
  return { mark(value) {
    const able = buttons.findIndex((button) => !button.disabled), chosen = values.indexOf(value);
    const stop = chosen >= 0 && !buttons[chosen].disabled ? chosen : able;   // where Tab enters the group
    buttons.forEach((button, i) => {
      button.setAttribute("aria-checked", String(i === chosen));
      button.tabIndex = i === stop ? 0 : -1;
    });
  } };
}
function segments(id, options, onChoose) {
  const buttons = options.map(({ value, name, title, off }) => {
    const button = make("button", "", name);
    button.title = title || "";
    button.disabled = Boolean(off);
    button.dataset.value = value;
    return button;
  });
  return makeChoice($(id), options.map((option) => option.value), buttons, onChoose);
}
