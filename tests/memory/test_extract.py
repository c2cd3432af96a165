from __future__ import annotations

from collections import Counter

import msgspec

from omi_edge.domain import Task
from omi_edge.memory.embed import stem
from tests.memory.dialogues import CASES, Case
from tests.memory.talk import local, rough, understand

TASK_PRECISION = TASK_RECALL = DATES_RIGHT = MEMORY_PRECISION = MEMORY_RECALL = 0.95
"""Bars over the labelled dialogues, clean and rough together. The rules were written with these dialogues in view: the
bars guard what works; they do not say how well the rules do on talk nobody has seen."""


class Score(msgspec.Struct):
    found: Counter[str] = Counter()
    wrong: list[str] = []

    def share(self, part: str, whole: str) -> float:
        return self.found[part] / max(1, self.found[whole])


def same_task(task: Task, label: str) -> bool:
    def key(text: str) -> set[str]:
        return {stem(word.strip(",")) for word in text.casefold().split() if word not in ("the", "a", "an")}

    return key(task.description) == key(label)


def judge(case: Case, lines: tuple[str, ...], score: Score) -> None:
    result = understand(lines, people=case.people, wearer=case.wearer)
    labels = dict(case.tasks)
    score.found["tasks expected"] += len(labels)
    score.found["memories expected"] += len(case.memories)
    for task in result.tasks:
        score.found["tasks"] += 1
        label = next((text for text in labels if same_task(task, text)), None)
        if label is None:
            score.wrong.append(f"{case.name}: no such task: {task.description}")
            continue
        score.found["tasks right"] += 1
        due = local(task.due_us, task.due_has_time, task.due_certain)
        score.found["dates"] += 1
        score.found["dates right"] += due == labels[label]
        if due != labels[label]:
            score.wrong.append(f"{case.name}: {label}: due {due!r}, not {labels[label]!r}")
        del labels[label]
    score.wrong += [f"{case.name}: task not found: {label}" for label in labels]
    expected = {text.casefold() for text in case.memories}
    heard = [memory.content.casefold() for memory in result.memories]
    score.found["memories"] += len(heard)
    score.found["memories right"] += sum(text in expected for text in heard)
    score.wrong += [f"{case.name}: no such memory: {text}" for text in heard if text not in expected]
    score.wrong += [f"{case.name}: memory not found: {text}" for text in expected - set(heard)]


def test_labelled_dialogues() -> None:
    assert len(CASES) >= 60
    score = Score()
    for case in CASES:
        judge(case, case.lines, score)
        judge(case, case.heard or tuple(map(rough, case.lines)), score)
    report = "\n".join([*score.wrong, str(dict(score.found))])
    assert score.share("tasks right", "tasks") >= TASK_PRECISION, report
    assert score.share("tasks right", "tasks expected") >= TASK_RECALL, report
    assert score.share("dates right", "dates") >= DATES_RIGHT, report
    assert score.share("memories right", "memories") >= MEMORY_PRECISION, report
    assert score.share("memories right", "memories expected") >= MEMORY_RECALL, report
    print(report)
