"""Sets of tiles that somebody cut already: what lies there, what is stated of each tile, and how its picture is read."""
