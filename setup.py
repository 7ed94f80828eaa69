"""The packages, which pyproject.toml cannot list without naming each: the folder conf/ is one of them in a wheel."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["neuralode_exp*"]), "neuralode_exp.conf"])
