"""What every stage needs: parameters, paths, errors, atomic writes, random generators."""
