"""How the numbers of a report came about, as HTML."""

from html import escape

from keras_robust.evaluation._table import noun, radius, threat


def render_method(data: dict) -> str:
    """A list of what was done, with parameters, sources, versions and the call."""
    items = [
        ("Attacks", _attacks(data)),
        ("What counts as robust", "".join(f"<p>{escape(note)}</p>" for note in data["notes"])),
        ("Images broken", _broken(data)),
        ("By stage", _stages(data) if any(a["stages"] for a in data["attacks"]) else ""),
        ("Curves", _curves(data)),
        ("Sizes", _sizes(data)),
        ("Latency", _latency(data)),
        ("Seed and batches", _seed(data)),
        ("Versions", _versions(data["environment"])),
        ("Call", f"<pre>{escape(_call(data))}</pre>"),
    ]
    return "<dl>" + "".join(f"<dt>{t}</dt><dd>{text}</dd>" for t, text in items if text) + "</dl>"


def _attacks(data) -> str:
    return "".join(
        f"<p>{escape(a['name'])}: {escape(_role(a))}<br><code>{escape(a['config'])}</code></p>"
        for a in data["attacks"]
    )


def _role(attack) -> str:
    role = threat(attack)
    if attack["stages"]:
        stages = ", ".join(s.removeprefix(f"{attack['name']}/") for s in attack["stages"])
        role += f"; one after the other on what still stands: {stages}"
    if attack["added"]:
        role += "; added, where gradients are missing, on what still stands"
    if attack["kind"] == "control":
        role += "; no radius, not in the worst case"
    return role + ("; the smallest perturbation" if attack["kind"] == "search" else "")


def _broken(data) -> str:
    """Which source broke how many images, one row an artifact and source."""
    attacks = [a["name"] for a in data["attacks"]]
    rows = []
    for name, artifact in data["artifacts"].items():
        made = [artifact["sources"].get(attack, {}) for attack in attacks]
        for source in dict.fromkeys(source for counts in made for source in counts):
            cells = "".join(f"<td>{_count(counts.get(source))}</td>" for counts in made)
            made_on = "itself" if source == name else source
            rows.append(
                f'<tr><th scope="row">{escape(name)}</th>'
                f'<td class="left">{escape(made_on)}</td>{cells}</tr>'
            )
    heads = "".join(f'<th scope="col">{escape(attack)}</th>' for attack in attacks)
    return (
        "<p>Of the images classified correctly when clean, each source by itself.</p>"
        '<div class="scroll"><table><thead>'
        '<tr><th scope="col">artifact</th><th scope="col" class="left">examples made on</th>'
        f"{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _count(images) -> str:
    return "-" if images is None else f"{images:,}"


def _stages(data) -> str:
    """What each stage of a suite broke."""
    lines = [
        f"{suite} on {name}: " + ", ".join(f"{stage} {count:,}" for stage, count in found.items())
        for name, artifact in data["artifacts"].items()
        for suite, found in artifact["stages"].items()
    ]
    return '<ul class="plain">' + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _curves(data) -> str:
    if not data["sweep"]:
        return ""
    eps = ", ".join(radius(float(e)) for e in next(iter(data["artifacts"].values()))["sweep"])
    return escape(
        f"{data['sweep']['attack']} at eps {eps}, on the first {data['sweep']['images']:,} "
        f"{noun(data)}; a step size given to the attack keeps its ratio to eps."
    )


def _sizes(data) -> str:
    groups = {}
    for name, artifact in data["artifacts"].items():
        groups.setdefault(artifact["size_of"] or "not measured", []).append(name)
    lines = "".join(
        f"<li>{escape(', '.join(names))}: {escape(what)}</li>" for what, names in groups.items()
    )
    return (
        f'<ul class="plain">{lines}</ul><p>gzip at level 9; of a folder, its tar with sorted names '
        "and no dates.</p>"
    )


def _latency(data) -> str:
    cpus = data["environment"]["cpus"]
    return escape(
        f"Median of {data['latency_runs']} calls with one image each, after a warm-up, from numpy "
        "to numpy. .tflite: LiteRT interpreter, one thread. Everything else: a compiled "
        f"TensorFlow function with TensorFlow's own threads ({cpus} CPUs), whose call from Python "
        "takes longer than a small model."
    )


def _seed(data) -> str:
    return escape(
        f"Seed {data['seed']}, plus one for each batch of {data['batch_size']}; the last "
        "batch is filled up and the filling not counted. Images that are wrong without attack are "
        "not attacked."
    )


def _versions(environment) -> str:
    keras = environment["keras"]
    devices = ", ".join(environment["accelerators"]) or "no accelerator"
    return escape(
        f"keras_robust {environment['keras_robust']}, TensorFlow {environment['tensorflow']}, "
        f"{keras['name']} {keras['version']}, Python {environment['python']}, "
        f"{environment['platform']}, {environment['cpus']} CPUs, {devices}"
    )


def _call(data) -> str:
    artifacts = ", ".join(f"{name!r}: ..." for name in data["artifacts"])
    attacks = ", ".join(f"{a['name']!r}: {a['config']}" for a in data["attacks"] if not a["added"])
    return (
        f"import keras_robust as kr\nreport = kr.evaluate({{{artifacts}}}, x, y,\n"
        f"    attacks={{{attacks}}},\n"
        f"    batch_size={data['batch_size']}, seed={data['seed']})\n"
        'report.save("report")'
    )
