{# The end of a bake: what no package does by itself. #}
{% if pillar.get('baking') %}
include:
  - mariadb.baking
  - neutron.schema
  - cinder.schema
  - keystone.schema
  - glance.schema
  - placement.schema
  - nova.schema

# Packages' Python is compiled here at once on all cores, not by a py3compile for each package. Before the schemas,
# whose tools would each compile what they import.
python-compiled:
  cmd.run:
    - name: python3 -m compileall -q -j 0 -x '/tests?/' /usr/lib/python3/dist-packages || true
    - require_in:
      - cmd: schemas-begun

# Packages turn their units on; on a node only its own states may (see 00-toastdev.preset).
units-off:
  cmd.run:
    - name: systemctl preset-all
    - order: last
{% endif %}
