"""What pyproject.toml cannot say: the config files in configs/ are installed inside mmcl_jax, as mmcl_jax/configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["mmcl_jax", "mmcl_jax.*", "data_prep", "data_prep.*"]), "mmcl_jax.configs"],
    package_dir={"mmcl_jax.configs": "configs"},
)
