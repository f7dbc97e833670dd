"""The packages of a Flower App: one list, with versions and hashes, for each set of requirements.

app_manifest       what the app asks for, in its pyproject.toml and uv.lock
requirement_rules  what it gets instead: our Flower, the CPU's or the GPU's build of a framework
resolver           the versions, found by uv
package_list       the list, kept so that the same inputs give the identical file without a network
package_env        a Python environment with the packages of a list, for fleets of local processes
"""
