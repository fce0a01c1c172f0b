"""Names beside the points of a plot."""

# Against a pixel of a name that lies on something: a point of distance, and a pixel of the line
# between a name and its point.
_FAR, _CROSSING = 1.0, 8.0


def label_points(axes, places, size=10, longest=26, lines=()) -> None:
    """A free place near each point, else the freest, with a line to it when far.

    Args:
        axes: whose limits are final.
        places: (x, y, name, colour of the line) of each point, in the order in which they choose.
        size: of the letters, in points.
        longest: letters of a name; longer ones are cut.
        lines: pairs ((x, y), (x, y)) of level or upright lines that names should not cross.
    """
    canvas = axes.figure.canvas
    axes.figure.draw_without_rendering()
    points = [axes.transData.transform((x, y)) for x, y, *_ in places]
    taken = [_box(px - 6, py - 6, 12, 12) for px, py in points]
    for ends in lines:
        (ax, ay), (bx, by) = (axes.transData.transform(end) for end in ends)
        taken.append((min(ax, bx) - 2, min(ay, by) - 2, max(ax, bx) + 2, max(ay, by) + 2))
    frame = axes.bbox
    dot = axes.figure.dpi / 72
    for (x, y, name, color), (px, py) in zip(places, points, strict=True):
        name = name if len(name) <= longest else name[: longest - 1] + "…"
        probe = axes.text(0, 0, name, fontsize=size)
        extent = probe.get_window_extent(canvas.get_renderer())
        probe.remove()
        width, height = extent.width + 3 * dot, 1.1 * size * dot
        best = None
        for dx, dy in _offsets(width / dot, height / dot):
            box = _box(px + dx * dot, py + dy * dot, width, height)
            outside = not (
                frame.x0 <= box[0]
                and box[2] <= frame.x1
                and frame.y0 <= box[1]
                and box[3] <= frame.y1
            )
            far = abs(dy + height / dot / 2) > 16
            way = list(_way(box, px, py)) if far else []
            cost = 1e6 * outside + _FAR * abs(dy + height / dot / 2)
            cost += sum(_overlap(box, other) for other in taken)
            cost += _CROSSING * sum(_overlap(step, other) for step in way for other in taken)
            if best is None or cost < best[0]:
                best = cost, dx, dy, far, [box, *way]
        _, dx, dy, far, boxes = best
        taken += boxes
        line = {"arrowstyle": "-", "color": color, "lw": 0.7, "shrinkA": 0, "shrinkB": 4}
        axes.annotate(
            name,
            (x, y),
            (dx, dy),
            textcoords="offset points",
            fontsize=size,
            color="#1d2530",
            va="bottom",
            ha="left",
            arrowprops=line if far else None,
        )


def _offsets(width, height):
    """Lower left corners of a label around a point, in points, nearest first."""
    for rise in (0, 9, -9, 18, -18, 28, -28, 40, -40, 54, -54, 70, -70, 88, -88, 108, -108):
        middle = rise - height / 2
        yield 8, middle
        yield -8 - width, middle
        if abs(rise) >= 18:
            yield -width / 2, middle


def _way(label, x, y):
    """Small boxes along the line from a label to its point."""
    left, low, right, high = label
    for part in (0.2, 0.35, 0.5, 0.65, 0.8):
        a = x + part * ((left + right) / 2 - x)
        b = y + part * ((low + high) / 2 - y)
        # Neither inside the label nor at the point itself.
        if not (left <= a <= right and low <= b <= high) and max(abs(a - x), abs(b - y)) > 9:
            yield _box(a - 2, b - 2, 4, 4)


def _box(x, y, width, height):
    return x, y, x + width, y + height


def _overlap(a, b) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return wide * high if wide > 0 and high > 0 else 0.0
