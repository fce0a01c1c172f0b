"""What the numbers say, in a few sentences."""

from keras_robust.evaluation._table import kilobytes, noun, percent, radius, searches, threat


def summarise(data: dict) -> list[str]:
    """Sentences about the shipped file, the most robust model, and the least robust one.

    The shipped file is the last `.tflite` file of the report. It is compared with the most
    robust model beside it, the hardest standard that the report holds.
    """
    artifacts = data["artifacts"]
    if any(artifact["worst_case"] is None for artifact in artifacts.values()):
        return [_without_radius(name, data) for name in artifacts]
    files = [name for name, a in artifacts.items() if a["kind"] == "tflite"]
    others = [name for name, a in artifacts.items() if a["kind"] != "tflite"]
    best = max(others or files, key=lambda name: artifacts[name]["worst_case"])
    shipped = files[-1] if files and others else None
    sentences = [_headline(shipped or best, data)]
    if shipped:
        sentences += _against(shipped, best, artifacts)
    worst = min(artifacts, key=lambda name: artifacts[name]["worst_case"])
    lost = artifacts[best]["worst_case"] - artifacts[worst]["worst_case"]
    if worst not in (shipped, best) and lost > 0.05:
        sentences.append(
            f'"{worst}" falls from {percent(artifacts[worst]["clean_accuracy"])}% to '
            f"{percent(artifacts[worst]['worst_case'])}% under the same attacks."
        )
    return sentences


def _headline(name, data) -> str:
    artifact = data["artifacts"][name]
    low, high = artifact["worst_case_interval"]
    return (
        f'"{name}" classifies {percent(artifact["clean_accuracy"])}% of {data["data"]["images"]:,} '
        f"{noun(data)} correctly, and {percent(artifact['worst_case'])}% (95% interval "
        f"{percent(low)} to {percent(high)}%) still under {_attacks(data)}."
    )


def _without_radius(name, data) -> str:
    """What there is to say when no attack had a radius."""
    artifact = data["artifacts"][name]
    parts = [f"{percent(share)}% under {a}" for a, share in artifact["robust_accuracy"].items()]
    for attack in searches(data):
        found = artifact["distortion"][attack["name"]]
        if found["median"] is not None:
            parts.append(f"a median {found['norm']} distortion of {found['median']:.3g}")
    text = f'"{name}" classifies {percent(artifact["clean_accuracy"])}% correctly'
    return f"{text}; {_list(parts)}." if parts else f"{text}."


def _attacks(data) -> str:
    balls = [a for a in data["attacks"] if a["kind"] == "ball"]
    balls = [a for a in balls if not a["added"]] or balls
    radii = {(a["norm"], radius(a["eps"])) for a in balls}
    names = [a["name"] for a in balls]
    if len(radii) == 1:
        norm, eps = radii.pop()
        return f"{_list(names)} with {norm} eps {eps}"
    return _list([f"{a['name']} ({threat(a)})" for a in balls])


def _against(shipped, best, artifacts) -> list[str]:
    file, model = artifacts[shipped], artifacts[best]
    points = 100 * (file["worst_case"] - model["worst_case"])
    if abs(points) < 0.05:
        gap = "as much as"
    else:
        gap = f"{abs(points):.1f} points {'more' if points > 0 else 'less'} than"
    text = f'That is {gap} "{best}", the most robust model beside it'
    if file["gzip_bytes"] and model["gzip_bytes"]:
        ratio = model["gzip_bytes"] / file["gzip_bytes"]
        sizes = f"{kilobytes(file['gzip_bytes'])} against {kilobytes(model['gzip_bytes'])} KB"
        text += f"; gzipped it is {max(ratio, 1 / ratio):.1f} times "
        text += f"{'smaller' if ratio >= 1 else 'larger'} ({sizes})"
    (low, high), (other_low, other_high) = file["worst_case_interval"], model["worst_case_interval"]
    overlap = low <= other_high and other_low <= high
    verdict = (
        "The two 95% intervals overlap: the difference may be chance."
        if overlap
        else "The two 95% intervals do not overlap."
    )
    made_on = _made_on(shipped, file)
    return [text + "."] + ([verdict] if abs(points) >= 0.05 else []) + [made_on]


def _made_on(name, file) -> str:
    sources = {source for made in file["sources"].values() for source in made}
    others = [f'"{source}"' for made in file["sources"].values() for source in made]
    others = [source for source in dict.fromkeys(others) if source != f'"{name}"']
    made = [f"with examples made on {_list(others)}"] if others else []
    asked = ["by attacks that only ask it"] if name in sources else []
    return f"The file was attacked {_list(made + asked)}."


def _list(names) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
