"""Sixty completions made to hang, crash or fool a grader; none ends in the right answer to its gold."""

from __future__ import annotations

INTEGER_GOLD = "73"
SYMBOLIC_GOLD = r"\frac{1}{2}"
EXPRESSION_GOLD = "x^2+1"


def boxed(answer: str) -> str:
    return rf"So the answer is $\boxed{{{answer}}}$."


TOWERS = [
    "9^{9^{9^9}}",
    "9^9^9^9",
    "2^{2^{2^{2^{2^{2^2}}}}}",
    "(9^9)^{(9^9)^{(9^9)}}",
    "10^{10^{10}}",
    "7**7**7**7",
    "x^{9^{9^{9}}}",
    "e^{e^{e^{e^{79}}}}",
    r"\left(\frac{1}{2}\right)^{10^{10^{10}}}",
    r"\sqrt[9^{9^9}]{2}",
    "3^{99999999999}",
    r"\log_{9^{9^9}} 2",
]
FACTORIALS = [
    "10^6!",
    "(10^6)!",
    "1000000!",
    "((9!)!)!",
    "9!!!!!",
    r"\frac{100000!}{99999!}",
    r"\binom{10000000}{5000000}",
    "(x!)!!!",
    "99999!-99998!",
]
NESTING = [
    "{" * 1000 + "1" + "}" * 1000,
    "(" * 1000 + "1" + ")" * 1000,
    r"\frac{1}{" * 300 + "2" + "}" * 300,
    r"\sqrt{" * 200 + "2" + "}" * 200,
    "[" * 25 + "1" + "]" * 25,
    r"\left(" * 28 + "x" + r"\right)" * 28,
    "-" * 900 + "1",
    "x_{" * 25 + "1" + "}" * 25,
]
SLOW = [
    r"\int_0^1 \int_0^1 \int_0^1 \sin(xyz)^{x^{y^{z}}} dx dy dz",
    r"\sum_{k=1}^{1000000} \frac{1}{k^{k}}",
    r"\prod_{k=1}^{99999} \left(1-\frac{1}{k^2+1}\right)",
    "(x+y+z+w+u+v)^{300}-(x+y+z+w+u+v)^{299}",
    "+".join(f"x_{{{i}}}^{{{i}}}" for i in range(60)),
    r"\sin(\cos(\tan(\sin(\cos(\tan(\sin(\cos(x))))))))^{77}",
    r"\lim_{x \to 0} \frac{\sin(\sin(\sin(\sin x)))}{x^{x^x}}",
    ",".join(str(i) for i in range(300)),
    "+".join(rf"\sqrt{{{i}}}" for i in range(2, 60)),
]
TEXTS = [
    "1" * 100_000,
    "x" * 100_000,
    "," * 20_000,
    "7" * 401,
    "1/2 or 1/3",
    r"\frac{1}{2}, \frac{1}{3}",
    r"\frac{1}{3}=\frac{1}{2}",
    r"\frac{1}{2} \text{ but in fact } \frac{1}{3} \text{ cm}",
    "\x00",
    "1/2\x00",
    "\ud800",
    r"\frac{1}{2}" + "\udfff\ud800",
    r"\text{__import__('os').system('true')}",
    r"\def\x{\x\x}\x",
]
WHOLE = [
    "",
    "\x00" * 1000,
    "\ud800" * 1000,
    " " * 100_000,
    "answer" + " " * 100_000,
    "Answer:" * 20_000,
    "Answer:\n" * 20_000,
    "\\" * 100_000,
    r"\boxed{" * 5_000,
    r"\boxed{" * 2_000 + "}" * 1_999,
    "".join(rf"\boxed{{{i}}}" for i in range(5_000)),
    "<think>" * 10_000 + r"\boxed{73} \boxed{\frac{1}{2}} \boxed{x^2+1}",
    "$" * 100_000 + r"\boxed{",
    "maybe 1+72, or 0.5, or x^2+1",
]

INSIDE_A_BOX = [boxed(answer) for answer in TOWERS + FACTORIALS + NESTING + SLOW + TEXTS]
COMPLETIONS = INSIDE_A_BOX + WHOLE
