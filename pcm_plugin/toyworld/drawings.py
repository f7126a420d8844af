"""Drawings of all kinds of things: one function per kind, drawn with a :class:`Pen` on its tile.

The arguments are the pen, the main color and a :class:`random.Random` for the pose. A thing stands
on the bottom edge (y = 1) and fills the tile as far as its shape allows.
"""

import math
from random import Random

from pcm_plugin.toyworld.pen import Color, Pen, shade

BLACK: Color = (30, 28, 32)
WHITE: Color = (245, 245, 242)
GRAY: Color = (128, 130, 135)
WOOD: Color = (140, 94, 52)
GREEN: Color = (52, 132, 60)
SKINS: tuple[Color, ...] = ((242, 205, 172), (214, 160, 118), (150, 102, 70), (98, 66, 48))
HAIRS: tuple[Color, ...] = ((40, 30, 26), (105, 66, 34), (206, 164, 82), (150, 60, 30))


def _eye(p: Pen, x: float, y: float, r: float = 0.022) -> None:
    p.ellipse(x, y, r, r, BLACK)


def _legs(p: Pen, xs: tuple[float, ...], top: float, width: float, c: Color, v: Random) -> None:
    for i, x in enumerate(xs):
        swing = v.uniform(-0.05, 0.05)
        p.line([(x, top), (x + swing, 0.97)], width, shade(c, 0.86 if i % 2 else 1))


def man(p: Pen, c: Color, v: Random) -> None:
    skin, hair = v.choice(SKINS), v.choice(HAIRS)
    trousers = v.choice([(50, 60, 92), (70, 70, 74), (96, 80, 60)])
    spread = v.uniform(0.05, 0.1)
    for s in (-1, 1):
        p.line([(0.5 + s * 0.06, 0.6), (0.5 + s * spread, 0.95)], 0.11, trousers)
        p.ellipse(0.5 + s * spread + 0.02, 0.975, 0.07, 0.03, BLACK)
        lift = v.uniform(-0.12, 0.2)
        elbow = (0.5 + s * 0.2, 0.46 + lift * 0.3)
        p.line([(0.5 + s * 0.12, 0.33), elbow], 0.09, shade(c, 0.8))
        p.line([elbow, (0.5 + s * 0.24, 0.52 + lift)], 0.06, skin)
    p.rect(0.36, 0.27, 0.64, 0.64, c, 0.05)
    p.ellipse(0.5, 0.15, 0.1, 0.12, skin)
    p.pie(0.5, 0.13, 0.115, 180, 360, hair)
    for s in (-1, 1):
        _eye(p, 0.5 + s * 0.04, 0.15, 0.014)


def woman(p: Pen, c: Color, v: Random) -> None:
    skin, hair = v.choice(SKINS), v.choice(HAIRS)
    p.ellipse(0.5, 0.18, 0.14, 0.16, hair)
    p.rect(0.37, 0.16, 0.63, 0.36, hair, 0.05)
    for s in (-1, 1):
        p.line([(0.5 + s * 0.06, 0.75), (0.5 + s * 0.07, 0.96)], 0.06, skin)
        p.ellipse(0.5 + s * 0.08, 0.975, 0.05, 0.025, shade(c, 0.5))
        lift = v.uniform(-0.14, 0.16)
        p.line([(0.5 + s * 0.1, 0.36), (0.5 + s * 0.23, 0.52 + lift)], 0.055, skin)
    p.poly([(0.41, 0.29), (0.59, 0.29), (0.57, 0.5), (0.74, 0.8), (0.26, 0.8), (0.43, 0.5)], c)
    p.rect(0.42, 0.48, 0.58, 0.52, shade(c, 0.65))
    p.ellipse(0.5, 0.17, 0.085, 0.105, skin)
    p.pie(0.5, 0.14, 0.1, 180, 360, hair)
    for s in (-1, 1):
        _eye(p, 0.5 + s * 0.035, 0.17, 0.013)


def dog(p: Pen, c: Color, v: Random) -> None:
    p.line([(0.14, 0.52), (0.05, v.uniform(0.28, 0.42))], 0.06, c)
    _legs(p, (0.22, 0.32, 0.56, 0.66), 0.66, 0.085, c, v)
    p.ellipse(0.43, 0.58, 0.31, 0.16, c)
    p.line([(0.64, 0.55), (0.74, 0.38)], 0.17, c)
    p.ellipse(0.76, 0.34, 0.14, 0.13, c)
    p.ellipse(0.88, 0.39, 0.1, 0.065, shade(c, 1.25))
    p.ellipse(0.96, 0.37, 0.03, 0.028, BLACK)
    p.ellipse(0.68, 0.37, 0.055, 0.13, shade(c, 0.6))
    _eye(p, 0.8, 0.31)
    p.line([(0.68, 0.5), (0.79, 0.49)], 0.035, (200, 40, 40))


def cat(p: Pen, c: Color, v: Random) -> None:
    p.arc(0.72, 0.72, 0.2, 0.22, 90, -60 + v.uniform(-30, 20), 0.06, shade(c, 0.8))
    p.ellipse(0.5, 0.76, 0.23, 0.24, c)
    p.ellipse(0.5, 0.8, 0.11, 0.16, shade(c, 1.5))
    for s in (-1, 1):
        p.ellipse(0.5 + s * 0.11, 0.96, 0.08, 0.04, shade(c, 1.2))
        p.poly(
            [(0.5 + s * 0.2, 0.36), (0.5 + s * 0.22, 0.08), (0.5 + s * 0.04, 0.24)], shade(c, 0.75)
        )
    p.ellipse(0.5, 0.38, 0.23, 0.19, c)
    for s in (-1, 1):
        p.ellipse(0.5 + s * 0.09, 0.36, 0.045, 0.05, (150, 200, 70))
        p.ellipse(0.5 + s * 0.09, 0.36, 0.018, 0.045, BLACK)
        for d in (-0.02, 0.03):
            p.line([(0.5 + s * 0.08, 0.45), (0.5 + s * 0.3, 0.44 + d)], 0.012, WHITE)
    p.poly([(0.47, 0.43), (0.53, 0.43), (0.5, 0.47)], (220, 120, 130))


def horse(p: Pen, c: Color, v: Random) -> None:
    mane = shade(c, 0.4)
    p.line([(0.13, 0.45), (0.06, 0.6), (0.08, 0.76)], 0.06, mane)
    _legs(p, (0.2, 0.29, 0.56, 0.65), 0.56, 0.065, c, v)
    p.ellipse(0.42, 0.49, 0.31, 0.14, c)
    p.poly([(0.56, 0.5), (0.72, 0.5), (0.86, 0.2), (0.72, 0.12)], c)
    p.line([(0.58, 0.42), (0.7, 0.14)], 0.07, mane)
    p.line([(0.78, 0.16), (0.94, 0.33)], 0.13, c)
    p.poly([(0.72, 0.13), (0.76, 0.02), (0.81, 0.12)], c)
    _eye(p, 0.82, 0.17, 0.018)


def sheep(p: Pen, c: Color, v: Random) -> None:
    _legs(p, (0.28, 0.38, 0.56, 0.66), 0.72, 0.06, BLACK, v)
    for i in range(9):
        a = i * math.tau / 9
        p.ellipse(0.45 + 0.24 * math.cos(a), 0.56 + 0.15 * math.sin(a), 0.12, 0.11, c)
    p.ellipse(0.45, 0.56, 0.28, 0.18, shade(c, 0.96))
    p.ellipse(0.8, 0.47, 0.1, 0.13, (58, 52, 52))
    p.ellipse(0.8, 0.36, 0.09, 0.06, c)
    p.ellipse(0.7, 0.44, 0.06, 0.03, (58, 52, 52))
    p.ellipse(0.83, 0.45, 0.022, 0.022, WHITE)


def bird(p: Pen, c: Color, v: Random) -> None:
    p.poly([(0.3, 0.6), (0.0, 0.72), (0.06, 0.84), (0.36, 0.72)], shade(c, 0.6))
    for x in (0.46, 0.54):
        p.line([(x, 0.8), (x + 0.02, 0.98)], 0.025, (220, 140, 40))
    p.ellipse(0.48, 0.62, 0.27, 0.21, c)
    p.ellipse(0.68, 0.36, 0.16, 0.15, c)
    p.ellipse(0.55, 0.7, 0.15, 0.11, shade(c, 1.7))
    p.poly([(0.82, 0.32), (0.99, 0.39), (0.82, 0.43)], (240, 160, 40))
    wing = v.uniform(-0.3, 0.06)
    p.poly([(0.56, 0.52), (0.2, 0.46 + wing), (0.24, 0.68 + wing * 0.3)], shade(c, 0.65))
    _eye(p, 0.72, 0.33, 0.026)


def duck(p: Pen, c: Color, v: Random) -> None:
    p.poly([(0.04, 0.52), (0.26, 0.64), (0.2, 0.86)], shade(c, 0.9))
    p.ellipse(0.43, 0.78, 0.35, 0.2, c)
    p.line([(0.66, 0.72), (0.72, 0.36)], 0.14, c)
    p.ellipse(0.72, 0.3, 0.15, 0.13, c)
    p.ellipse(0.92, 0.34, 0.09, 0.045, (235, 120, 20))
    p.ellipse(0.36, 0.74 + v.uniform(-0.03, 0.03), 0.2, 0.1, shade(c, 0.75))
    p.line([(0.63, 0.5), (0.77, 0.5)], 0.04, WHITE)
    _eye(p, 0.76, 0.27)


def elephant(p: Pen, c: Color, v: Random) -> None:
    for i, x in enumerate((0.2, 0.34, 0.5, 0.62)):
        p.rect(x - 0.065, 0.6, x + 0.065, 0.98, shade(c, 0.8 if i % 2 else 1), 0.03)
    p.ellipse(0.4, 0.47, 0.35, 0.26, c)
    p.line([(0.06, 0.4), (0.03, 0.62)], 0.03, shade(c, 0.7))
    p.ellipse(0.72, 0.38, 0.18, 0.19, c)
    lift = v.uniform(-0.24, 0.04)
    p.line([(0.84, 0.42), (0.92, 0.62), (0.94, 0.8 + lift)], 0.085, c)
    p.ellipse(0.61, 0.38, 0.13, 0.19, shade(c, 0.74))
    p.line([(0.82, 0.53), (0.93, 0.56)], 0.04, WHITE)
    _eye(p, 0.79, 0.32)


def rabbit(p: Pen, c: Color, v: Random) -> None:
    tilt = v.uniform(-0.06, 0.06)
    for s in (-1, 1):
        ear = (0.5 + s * 0.09, 0.4), (0.5 + s * 0.12 + tilt, 0.08)
        p.line(ear, 0.11, c)
        p.line(ear, 0.045, (236, 160, 170))
    p.ellipse(0.5, 0.79, 0.22, 0.2, c)
    p.ellipse(0.74, 0.84, 0.08, 0.08, WHITE)
    for s in (-1, 1):
        p.ellipse(0.5 + s * 0.13, 0.96, 0.12, 0.045, shade(c, 0.88))
    p.ellipse(0.5, 0.48, 0.18, 0.16, c)
    p.ellipse(0.5, 0.53, 0.03, 0.022, (226, 110, 130))
    for s in (-1, 1):
        _eye(p, 0.5 + s * 0.08, 0.45, 0.025)


def _wheel(p: Pen, x: float, y: float, r: float) -> None:
    p.ellipse(x, y, r, r, BLACK)
    p.ellipse(x, y, r * 0.5, r * 0.5, (190, 190, 195))


GLASS: Color = (176, 214, 232)


def car(p: Pen, c: Color, v: Random) -> None:
    roof = v.uniform(0.36, 0.42)
    p.poly([(0.2, 0.62), (0.32, roof), (0.66, roof), (0.8, 0.62)], c)
    p.poly([(0.27, 0.6), (0.35, roof + 0.05), (0.48, roof + 0.05), (0.48, 0.6)], GLASS)
    p.poly([(0.52, 0.6), (0.52, roof + 0.05), (0.63, roof + 0.05), (0.73, 0.6)], GLASS)
    p.rect(0.02, 0.59, 0.98, 0.85, c, 0.08)
    p.rect(0.02, 0.75, 0.98, 0.8, shade(c, 0.6))
    p.ellipse(0.95, 0.67, 0.03, 0.04, (255, 240, 150))
    for x in (0.24, 0.76):
        _wheel(p, x, 0.86, 0.13)


def bus(p: Pen, c: Color, v: Random) -> None:
    p.rect(0.0, 0.2, 1.0, 0.88, c, 0.07)
    for i in range(4):
        p.rect(0.06 + i * 0.19, 0.3, 0.2 + i * 0.19, 0.52, GLASS, 0.02)
    p.rect(0.84, 0.3, 0.97, 0.8, GLASS, 0.02)
    p.rect(0.0, 0.6, 0.82, 0.66, shade(c, 1.8))
    for x in (0.22, 0.72):
        _wheel(p, x, 0.88, 0.11)


def truck(p: Pen, c: Color, v: Random) -> None:
    load = v.choice([(222, 222, 216), (178, 182, 188), (196, 176, 140)])
    p.rect(0.0, 0.22, 0.62, 0.8, load, 0.01)
    for x in (0.15, 0.31, 0.47):
        p.line([(x, 0.26), (x, 0.76)], 0.014, shade(load, 0.75))
    p.poly([(0.65, 0.36), (0.86, 0.36), (0.97, 0.58), (0.99, 0.82), (0.65, 0.82)], c)
    p.poly([(0.71, 0.41), (0.84, 0.41), (0.91, 0.57), (0.71, 0.57)], GLASS)
    p.rect(0.0, 0.8, 0.99, 0.86, BLACK)
    for x in (0.16, 0.4, 0.81):
        _wheel(p, x, 0.88, 0.11)


def bicycle(p: Pen, c: Color, v: Random) -> None:
    for x in (0.22, 0.78):
        p.ring(x, 0.75, 0.22, 0.045, BLACK)
        for k in range(3):
            a = k * math.pi / 3 + v.uniform(0, 0.6)
            dx, dy = 0.19 * math.cos(a), 0.19 * math.sin(a)
            p.line([(x - dx, 0.75 - dy), (x + dx, 0.75 + dy)], 0.008, GRAY)
    frame = [(0.22, 0.75), (0.38, 0.42), (0.68, 0.42), (0.48, 0.75), (0.22, 0.75)]
    p.line(frame, 0.05, c)
    p.line([(0.48, 0.75), (0.36, 0.36)], 0.05, c)
    p.line([(0.78, 0.75), (0.66, 0.3)], 0.05, c)
    p.line([(0.28, 0.33), (0.44, 0.33)], 0.06, BLACK)
    p.line([(0.6, 0.28), (0.76, 0.27)], 0.05, BLACK)


def boat(p: Pen, c: Color, v: Random) -> None:
    sail = v.choice([WHITE, (250, 236, 205), (232, 232, 244)])
    p.line([(0.48, 0.04), (0.48, 0.74)], 0.03, WOOD)
    p.poly([(0.52, 0.06), (0.9, 0.64), (0.52, 0.64)], sail)
    p.poly([(0.44, 0.16), (0.44, 0.64), (0.16, 0.64)], shade(sail, 0.84))
    p.poly([(0.03, 0.72), (0.97, 0.72), (0.8, 0.97), (0.18, 0.97)], c)
    p.line([(0.06, 0.75), (0.94, 0.75)], 0.03, shade(c, 1.7))


def airplane(p: Pen, c: Color, v: Random) -> None:
    body = (226, 230, 236)
    p.poly([(0.1, 0.5), (0.02, 0.22), (0.14, 0.22), (0.28, 0.48)], c)
    p.poly([(0.52, 0.48), (0.36, 0.2), (0.46, 0.2), (0.68, 0.48)], shade(c, 0.7))
    p.ellipse(0.52, 0.53, 0.46, 0.11, body)
    p.rect(0.2, 0.55, 0.86, 0.6, c)
    for i in range(6):
        p.ellipse(0.3 + i * 0.085, 0.5, 0.022, 0.022, (60, 100, 150))
    p.poly([(0.44, 0.56), (0.24, 0.9), (0.36, 0.9), (0.66, 0.58)], c)
    p.poly([(0.86, 0.45), (0.95, 0.51), (0.84, 0.51)], (60, 100, 150))


def chair(p: Pen, c: Color, v: Random) -> None:
    for x in (0.27, 0.42, 0.7):
        p.line([(x, 0.6), (x + v.uniform(-0.01, 0.02), 0.97)], 0.05, shade(c, 0.65))
    p.rect(0.23, 0.05, 0.32, 0.97, shade(c, 0.8), 0.02)
    p.rect(0.23, 0.08, 0.46, 0.5, c, 0.04)
    p.poly([(0.22, 0.54), (0.68, 0.54), (0.78, 0.66), (0.28, 0.66)], shade(c, 1.2))
    p.rect(0.73, 0.62, 0.79, 0.97, shade(c, 0.8), 0.02)


def table(p: Pen, c: Color, v: Random) -> None:
    for x in (0.1, 0.86):
        p.rect(x, 0.42, x + 0.06, 0.98, shade(c, 0.7))
    for x in (0.22, 0.74):
        p.rect(x, 0.42, x + 0.045, 0.88, shade(c, 0.5))
    p.poly([(0.14, 0.28), (0.86, 0.28), (1.0, 0.42), (0.0, 0.42)], shade(c, 1.25))
    p.rect(0.0, 0.42, 1.0, 0.49, c)


def bed(p: Pen, c: Color, v: Random) -> None:
    p.rect(0.0, 0.28, 0.08, 0.96, WOOD, 0.02)
    p.rect(0.93, 0.52, 1.0, 0.96, WOOD, 0.02)
    p.rect(0.05, 0.7, 0.96, 0.86, shade(WOOD, 0.8))
    p.rect(0.07, 0.52, 0.94, 0.74, WHITE, 0.03)
    p.rect(0.09, 0.41, 0.34, 0.57, (250, 250, 255), 0.06)
    p.rect(0.36, 0.48, 0.95, 0.78, c, 0.04)
    p.rect(0.36, 0.48, 0.44, 0.78, shade(c, 1.6), 0.02)


def couch(p: Pen, c: Color, v: Random) -> None:
    p.rect(0.08, 0.34, 0.92, 0.8, shade(c, 0.8), 0.08)
    p.rect(0.16, 0.4, 0.49, 0.66, c, 0.05)
    p.rect(0.51, 0.4, 0.84, 0.66, c, 0.05)
    p.rect(0.12, 0.62, 0.88, 0.8, shade(c, 1.25), 0.04)
    for x0 in (0.0, 0.84):
        p.rect(x0, 0.48, x0 + 0.16, 0.9, c, 0.07)
    p.rect(0.1, 0.8, 0.9, 0.9, shade(c, 0.7))
    for x in (0.07, 0.89):
        p.rect(x, 0.9, x + 0.04, 0.98, BLACK)


def lamp(p: Pen, c: Color, v: Random) -> None:
    p.ellipse(0.5, 0.95, 0.18, 0.04, GRAY)
    p.line([(0.5, 0.4), (0.5, 0.94)], 0.045, GRAY)
    p.ellipse(0.5, 0.42, 0.16, 0.06, (255, 246, 190))
    p.poly([(0.36, 0.08), (0.64, 0.08), (0.8, 0.42), (0.2, 0.42)], c)
    p.poly([(0.44, 0.08), (0.52, 0.08), (0.48, 0.42), (0.34, 0.42)], shade(c, 1.5))


def clock(p: Pen, c: Color, v: Random) -> None:
    p.ellipse(0.5, 0.54, 0.45, 0.45, c)
    p.ellipse(0.5, 0.54, 0.35, 0.35, WHITE)
    for k in range(12):
        a = k * math.tau / 12
        p.ellipse(0.5 + 0.29 * math.cos(a), 0.54 + 0.29 * math.sin(a), 0.02, 0.02, BLACK)
    for length, width in ((0.18, 0.045), (0.26, 0.03)):
        a = v.uniform(0, math.tau)
        p.line(
            [(0.5, 0.54), (0.5 + length * math.cos(a), 0.54 + length * math.sin(a))], width, BLACK
        )


def ball(p: Pen, c: Color, v: Random) -> None:
    p.ellipse(0.5, 0.52, 0.46, 0.46, c)
    turn = v.uniform(0, 180)
    p.pie(0.5, 0.52, 0.46, turn, turn + 50, shade(c, 2.2))
    p.pie(0.5, 0.52, 0.46, turn + 130, turn + 180, shade(c, 2.2))
    p.ellipse(0.5, 0.52, 0.12, 0.12, shade(c, 0.65))
    p.ellipse(0.34, 0.32, 0.07, 0.05, WHITE)


def umbrella(p: Pen, c: Color, v: Random) -> None:
    p.line([(0.5, 0.06), (0.5, 0.9)], 0.035, WOOD)
    p.arc(0.57, 0.9, 0.07, 0.07, 180, 0, 0.035, WOOD)
    p.pie(0.5, 0.5, 0.47, 180, 360, c)
    for k in (0, 2):
        p.poly(
            [(0.5, 0.03), (0.03 + k * 0.235, 0.5), (0.265 + k * 0.235, 0.5)],
            shade(c, 0.7),
        )
    p.poly([(0.5, 0.03), (0.735, 0.5), (0.97, 0.5)], shade(c, 1.4))


def cup(p: Pen, c: Color, v: Random) -> None:
    p.ring(0.74, 0.6, 0.19, 0.07, shade(c, 0.8))
    p.poly([(0.12, 0.3), (0.74, 0.3), (0.66, 0.94), (0.2, 0.94)], c)
    p.ellipse(0.43, 0.94, 0.23, 0.04, c)
    p.ellipse(0.43, 0.3, 0.31, 0.09, shade(c, 1.6))
    p.ellipse(0.43, 0.31, 0.26, 0.06, (84, 52, 34))
    for x in (0.32, 0.5):
        sway = v.uniform(-0.06, 0.06)
        p.line([(x, 0.2), (x + sway, 0.12), (x, 0.04)], 0.025, (214, 214, 218))


def kite(p: Pen, c: Color, v: Random) -> None:
    p.poly([(0.62, 0.02), (0.94, 0.3), (0.56, 0.7), (0.3, 0.24)], c)
    p.poly([(0.62, 0.02), (0.94, 0.3), (0.58, 0.28)], shade(c, 1.8))
    p.poly([(0.56, 0.7), (0.3, 0.24), (0.58, 0.28)], shade(c, 0.6))
    tail = [(0.56, 0.7)]
    tail += [(0.5 - k * 0.09, 0.76 + k * 0.05 + v.uniform(-0.03, 0.03)) for k in range(5)]
    p.line(tail, 0.02, BLACK)
    for x, y in tail[2::2]:
        p.poly([(x - 0.06, y - 0.04), (x + 0.06, y + 0.04), (x + 0.06, y - 0.04)], shade(c, 1.4))


def balloon(p: Pen, c: Color, v: Random) -> None:
    sway = v.uniform(-0.1, 0.1)
    p.line([(0.5, 0.66), (0.5 + sway, 0.82), (0.5, 0.99)], 0.018, (90, 90, 90))
    p.poly([(0.44, 0.7), (0.56, 0.7), (0.5, 0.6)], shade(c, 0.8))
    p.ellipse(0.5, 0.35, 0.28, 0.33, c)
    p.ellipse(0.4, 0.22, 0.06, 0.09, shade(c, 3))


def guitar(p: Pen, c: Color, v: Random) -> None:
    p.line([(0.5, 0.5), (0.5, 0.08)], 0.085, (74, 50, 36))
    p.rect(0.43, 0.0, 0.57, 0.12, (54, 36, 28), 0.02)
    p.ellipse(0.5, 0.54, 0.19, 0.16, c)
    p.ellipse(0.5, 0.78, 0.26, 0.2, c)
    p.ellipse(0.5, 0.62, 0.085, 0.08, BLACK)
    p.rect(0.4, 0.8, 0.6, 0.84, (54, 36, 28))
    for dx in (-0.02, 0.02):
        p.line([(0.5 + dx, 0.06), (0.5 + dx, 0.82)], 0.008, WHITE)


def cake(p: Pen, c: Color, v: Random) -> None:
    p.ellipse(0.5, 0.93, 0.46, 0.06, (215, 215, 222))
    p.rect(0.12, 0.5, 0.88, 0.92, c, 0.04)
    p.ellipse(0.5, 0.5, 0.38, 0.11, WHITE)
    for i in range(6):
        p.ellipse(0.18 + i * 0.128, 0.57, 0.065, 0.08 + v.uniform(-0.02, 0.04), WHITE)
    for i in range(3):
        x = 0.32 + i * 0.18
        p.rect(x - 0.025, 0.24, x + 0.025, 0.5, (110, 170, 230))
        p.ellipse(x, 0.19, 0.03, 0.055, (255, 190, 40))


def pizza(p: Pen, c: Color, v: Random) -> None:
    p.ellipse(0.5, 0.56, 0.48, 0.42, (196, 132, 62))
    p.ellipse(0.5, 0.56, 0.41, 0.35, (250, 206, 92))
    for k in range(7):
        a, r = k * math.tau / 7 + v.uniform(-0.2, 0.2), 0.26 if k % 2 else 0.16
        p.ellipse(0.5 + r * math.cos(a), 0.56 + r * 0.85 * math.sin(a), 0.075, 0.068, (190, 44, 36))
    for _ in range(6):
        p.ellipse(v.uniform(0.25, 0.75), v.uniform(0.35, 0.77), 0.025, 0.022, (60, 120, 50))


def banana(p: Pen, c: Color, v: Random) -> None:
    for k in range(2 + v.randrange(2)):
        d = k * 0.07
        p.arc(0.52 + d, 0.16 + d, 0.44, 0.56 - d, 165, 60, 0.15, shade(c, 1 - 0.12 * k))
    p.line([(0.1, 0.32), (0.08, 0.2)], 0.07, (104, 80, 30))


def tree(p: Pen, c: Color, v: Random) -> None:
    p.rect(0.43, 0.58, 0.57, 0.99, (110, 74, 44))
    p.line([(0.5, 0.72), (0.64, 0.56)], 0.05, (110, 74, 44))
    for x, y, r in ((0.3, 0.42, 0.2), (0.7, 0.42, 0.2), (0.5, 0.24, 0.23), (0.5, 0.47, 0.22)):
        r += v.uniform(-0.03, 0.03)
        p.ellipse(x, y, r, r, shade(c, v.uniform(0.85, 1.15)))
    for _ in range(7):
        p.ellipse(v.uniform(0.25, 0.75), v.uniform(0.15, 0.55), 0.04, 0.03, shade(c, 0.7))


def flower(p: Pen, c: Color, v: Random) -> None:
    p.line([(0.5, 0.4), (0.5 + v.uniform(-0.05, 0.05), 0.98)], 0.05, GREEN)
    p.poly([(0.5, 0.84), (0.22, 0.64), (0.3, 0.84)], GREEN)
    p.poly([(0.5, 0.9), (0.8, 0.72), (0.7, 0.92)], shade(GREEN, 0.8))
    turn = v.uniform(0, 1)
    for k in range(6):
        a = turn + k * math.tau / 6
        p.ellipse(0.5 + 0.2 * math.cos(a), 0.32 + 0.2 * math.sin(a), 0.125, 0.125, c)
    p.ellipse(0.5, 0.32, 0.11, 0.11, (250, 204, 50))


def house(p: Pen, c: Color, v: Random) -> None:
    wall = v.choice([(238, 224, 196), (228, 206, 170), (222, 222, 222)])
    p.rect(0.7, 0.12, 0.8, 0.4, (126, 70, 56))
    p.rect(0.1, 0.46, 0.9, 0.98, wall)
    p.poly([(0.0, 0.48), (0.5, 0.08), (1.0, 0.48)], c)
    p.rect(0.42, 0.68, 0.58, 0.98, (112, 72, 44))
    for x in (0.18, 0.66):
        p.rect(x, 0.58, x + 0.16, 0.74, (120, 176, 216))
        p.line([(x + 0.08, 0.58), (x + 0.08, 0.74)], 0.015, WHITE)


def tent(p: Pen, c: Color, v: Random) -> None:
    p.poly([(0.32, 0.22), (0.76, 0.16), (1.0, 0.9), (0.62, 0.96)], shade(c, 0.7))
    p.poly([(0.32, 0.22), (0.0, 0.96), (0.64, 0.96)], c)
    open_by = v.uniform(0.06, 0.13)
    p.poly([(0.32, 0.4), (0.32 - open_by, 0.96), (0.32 + open_by, 0.96)], BLACK)
    p.line([(0.32, 0.22), (0.34, 0.12)], 0.02, WOOD)


def snowman(p: Pen, c: Color, v: Random) -> None:
    snow = (240, 246, 252)
    for x, y, r in ((0.5, 0.78, 0.22), (0.5, 0.5, 0.16), (0.5, 0.28, 0.12)):
        p.ellipse(x, y, r * 1.05, r * 1.03, (176, 196, 216))
        p.ellipse(x, y, r, r, snow)
    for s in (-1, 1):
        p.line([(0.5 + s * 0.14, 0.5), (0.5 + s * 0.36, 0.36 + v.uniform(-0.1, 0.1))], 0.025, WOOD)
        _eye(p, 0.5 + s * 0.045, 0.25, 0.016)
    p.poly([(0.5, 0.27), (0.64, 0.31), (0.5, 0.32)], (240, 130, 30))
    p.rect(0.37, 0.36, 0.63, 0.42, c, 0.02)
    p.rect(0.33, 0.15, 0.67, 0.19, BLACK)
    p.rect(0.4, 0.0, 0.6, 0.17, BLACK)
    for y in (0.5, 0.7, 0.82):
        _eye(p, 0.5, y, 0.02)
