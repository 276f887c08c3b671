"""How right the classes are: clients whose kind is known talk to real sensors (`make truth`).

``relay`` gives each client an address of its own; ``kinds`` names the kinds and the classes that
are right for them; ``real`` runs real programs, ``engines`` simulates what no package has;
``world`` runs the sensors and reads what they recorded; ``report`` counts.
"""
