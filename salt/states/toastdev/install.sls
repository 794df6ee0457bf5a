{# The end of a bake: what no package does by itself. #}
{% if pillar.get('baking') %}
# Packages turn their units on; on a node only its own states may (see 00-toastdev.preset).
units-off:
  cmd.run:
    - name: systemctl preset-all
    - order: last

# Packages' Python is compiled here at once on all cores, not by a py3compile for each package.
python-compiled:
  cmd.run:
    - name: python3 -m compileall -q -j 0 /usr/lib/python3/dist-packages || true
    - order: last
{% endif %}
